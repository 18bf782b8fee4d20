//! Puts every mutant of a source file into that file at once. Each changed place asks at run time if its
//! mutant is the chosen one, so that one build holds all mutants.
//!
//! A mutant is one change: a comparison shifted by one or reversed, an operator exchanged, a number one
//! higher, a named constant one higher, a field read one byte aside, a window one byte longer, a branch taken
//! always or never, an arm of a match left out, a reason exchanged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use anyhow::{Context as _, Result};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens as _, format_ident, quote};
use syn::{
    Arm, BinOp, Expr, ExprMatch, File, Item, Lit, LitInt, Pat, Path, Stmt, UnOp, parse_quote,
    punctuated::Punctuated,
    spanned::Spanned as _,
    visit_mut::{self, VisitMut},
};

/// One changed place.
#[derive(Clone, Debug)]
pub(super) struct Mutant {
    /// The number that chooses the mutant.
    pub(super) number: u32,
    /// The file, from the workspace's root.
    pub(super) file: String,
    /// The line number.
    pub(super) line: usize,
    /// The unchanged line.
    pub(super) text: String,
    /// Description of the change.
    pub(super) change: String,
}

impl Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, text, change, .. } = self;
        write!(f, "{file}:{line}: `{text}`: {change}")
    }
}

/// Rewrites a file with mutants and appends them to `mutants`.
pub(super) fn schema(name: &str, source: &str, mutants: &mut Vec<Mutant>) -> Result<String> {
    let mut file: File = syn::parse_file(source).with_context(|| name.to_owned())?;
    let computed = computed_constants(&file);
    let mut rewriting = Rewriting { file: name, source, mutants, computed };
    rewriting.visit_file_mut(&mut file);
    tell_apart(mutants);
    Ok(file.into_token_stream().to_string())
}

/// Adds the names of the types that a file defines.
pub(super) fn types(source: &str, names: &mut BTreeSet<String>) -> Result<()> {
    names.extend(syn::parse_file(source)?.items.iter().filter_map(|item| match item {
        Item::Struct(item) => Some(item.ident.to_string()),
        Item::Enum(item) => Some(item.ident.to_string()),
        _ => None,
    }));
    Ok(())
}

/// Rewrites a file without mutants: a function that takes one of `types` is not `const`, because the changed functions
/// that it may call are not. Returns `None` if the file has no such function.
pub(super) fn callers(source: &str, types: &BTreeSet<String>) -> Result<Option<String>> {
    struct Callers<'a>(&'a BTreeSet<String>, bool);
    impl VisitMut for Callers<'_> {
        fn visit_signature_mut(&mut self, signature: &mut syn::Signature) {
            let takes = |token| matches!(token, TokenTree::Ident(name) if self.0.contains(&name.to_string()));
            if signature.constness.is_some() && signature.inputs.to_token_stream().into_iter().any(takes) {
                signature.constness = None;
                self.1 = true;
            }
        }
    }
    let mut file = syn::parse_file(source)?;
    let mut callers = Callers(types, false);
    callers.visit_file_mut(&mut file);
    Ok(callers.1.then(|| file.into_token_stream().to_string()))
}

/// Numbers mutants with the same description in one line.
fn tell_apart(mutants: &mut [Mutant]) {
    let mut alike: BTreeMap<(String, usize, String), Vec<usize>> = BTreeMap::new();
    for (at, mutant) in mutants.iter().enumerate() {
        let Mutant { file, line, change, .. } = mutant.clone();
        alike.entry((file, line, change)).or_default().push(at);
    }
    for places in alike.values().filter(|places| places.len() > 1) {
        for (number, &at) in places.iter().enumerate() {
            let change = format!("{} ({} of {})", mutants[at].change, number + 1, places.len());
            mutants[at].change = change;
        }
    }
}

/// Returns the private constants that are computed: they become functions, so that their terms can change.
fn computed_constants(file: &File) -> BTreeSet<String> {
    let items = file.items.iter().filter_map(|item| match item {
        Item::Const(item) if item.ident != "_" && !matches!(*item.expr, Expr::Lit(_)) => {
            matches!(item.vis, syn::Visibility::Inherited).then_some(item)
        }
        _ => None,
    });
    items.filter(|item| is_integer(&item.ty)).map(|item| item.ident.to_string()).collect()
}

fn is_integer(kind: &syn::Type) -> bool {
    matches!(kind.to_token_stream().to_string().as_str(), "u8" | "u16" | "u32" | "u64" | "usize")
}

struct Rewriting<'a> {
    file: &'a str,
    source: &'a str,
    mutants: &'a mut Vec<Mutant>,
    computed: BTreeSet<String>,
}

/// Returns the last name of a path if it looks like the name of an integer constant.
fn constant(path: &Path) -> Option<String> {
    /// Constants that are not numbers.
    const OTHERS: [&str; 8] = ["WHOLE", "NONE", "NOTHING", "NO_SERVICE", "NOWHERE", "ALL", "V4", "V6"];
    let name = path.segments.last()?.ident.to_string();
    let upper =
        name.len() > 1 && name.chars().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_');
    (upper && name.starts_with(|it: char| it.is_ascii_uppercase()) && !OTHERS.contains(&name.as_str()))
        .then_some(name)
}

/// Returns a number one higher, or one lower where one higher does not fit.
fn adjacent(number: &LitInt) -> Option<LitInt> {
    let value: u64 = number.base10_parse().ok()?;
    let full = [0xff, 0xffff, 0xffff_ffff, u64::MAX].contains(&value);
    let other = if full { value - 1 } else { value + 1 };
    Some(LitInt::new(&format!("{other}{}", number.suffix()), number.span()))
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(it) => has_let(&it.left) || has_let(&it.right),
        _ => false,
    }
}

impl Rewriting<'_> {
    fn note(&mut self, span: Span, change: impl Into<String>) -> u32 {
        let number = self.mutants.len() as u32 + 1;
        let (file, line) = (self.file.to_owned(), span.start().line);
        let text = self.source.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
        self.mutants.push(Mutant { number, file, line, text, change: change.into() });
        number
    }

    /// Returns an expression that is `other` if the new mutant is chosen, and `own` otherwise.
    fn either(
        &mut self,
        span: Span,
        change: impl Into<String>,
        other: &TokenStream,
        own: &TokenStream,
    ) -> Expr {
        let number = self.note(span, change);
        parse_quote!((if crate::mutant::is(#number) { #other } else { #own }))
    }

    fn binary(&mut self, expr: &mut Expr) {
        let Expr::Binary(binary) = &*expr else { return };
        if has_let(expr) {
            return;
        }
        let (left, op, right) = (&binary.left, &binary.op, &binary.right);
        let other: BinOp = match op {
            BinOp::Lt(_) => parse_quote!(<=),
            BinOp::Le(_) => parse_quote!(<),
            BinOp::Gt(_) => parse_quote!(>=),
            BinOp::Ge(_) => parse_quote!(>),
            BinOp::Eq(_) => parse_quote!(!=),
            BinOp::Ne(_) => parse_quote!(==),
            BinOp::And(_) => parse_quote!(||),
            BinOp::Or(_) => parse_quote!(&&),
            BinOp::Add(_) => parse_quote!(-),
            BinOp::Sub(_) => parse_quote!(+),
            BinOp::Mul(_) => parse_quote!(/),
            BinOp::BitAnd(_) => parse_quote!(|),
            BinOp::BitOr(_) | BinOp::BitXor(_) => parse_quote!(&),
            BinOp::Shl(_) => parse_quote!(>>),
            BinOp::Shr(_) => parse_quote!(<<),
            BinOp::AddAssign(_) => parse_quote!(-=),
            BinOp::SubAssign(_) => parse_quote!(+=),
            BinOp::BitOrAssign(_) => parse_quote!(&=),
            _ => return,
        };
        let change = format!("{} becomes {}", op.to_token_stream(), other.to_token_stream());
        let (mutated, own) = (quote!((#left) #other (#right)), quote!((#left) #op (#right)));
        let span = op.span();
        *expr = self.either(span, change, &mutated, &own);
    }

    fn path(&mut self, expr: &mut Expr) {
        let Expr::Path(path) = &*expr else { return };
        let (span, own) = (expr.span(), expr.to_token_stream());
        let name = own.to_string().replace(' ', "");
        if let [first, _] = &path.path.segments.iter().map(|it| it.ident.to_string()).collect::<Vec<_>>()[..]
            && first == "Reason"
        {
            let other =
                if name == "Reason::Internal" { quote!(Reason::Row) } else { quote!(Reason::Internal) };
            *expr = self.either(span, format!("{name} becomes another reason"), &other, &own);
        } else if let Some(constant) = constant(&path.path) {
            let own = if self.computed.contains(&constant) { quote!(#own()) } else { own };
            let other = quote!((#own).wrapping_add(1));
            *expr = self.either(span, format!("{name} is one higher"), &other, &own);
        }
    }

    fn call(&mut self, expr: &mut Expr) {
        let Expr::Call(call) = &*expr else { return };
        let Expr::Path(function) = &*call.func else { return };
        let Some(last) = function.path.segments.last() else { return };
        let width = match last.ident.to_string().as_str() {
            "be16" => 2,
            "be32" | "words" => 4,
            _ => return,
        };
        let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return };
        let numbers: Vec<u64> = arguments
            .args
            .iter()
            .filter_map(|argument| argument.to_token_stream().to_string().parse().ok())
            .collect();
        let [at, rest @ .., window] = &numbers[..] else { return };
        let aside = if at + 1 + width <= *window { Some(at + 1) } else { at.checked_sub(1) };
        // A field that fills its window cannot be read aside.
        let Some(aside) = aside else { return };
        let literal = |number: &u64| LitInt::new(&number.to_string(), Span::call_site());
        let all: Vec<LitInt> = [&aside].into_iter().chain(rest).chain([window]).map(literal).collect();
        let (name, inputs) = (&last.ident, &call.args);
        let (mutated, own) = (quote!(#name::<#(#all),*>(#inputs)), quote!(#call));
        let (span, change) = (call.func.span(), format!("the field at {at} is read at {aside}"));
        *expr = self.either(span, change, &mutated, &own);
    }

    fn window(&mut self, expr: &mut Expr) {
        let Expr::MethodCall(call) = &*expr else { return };
        let Some(turbofish) = call.turbofish.as_ref().filter(|_| call.method == "window") else { return };
        let Ok(bytes) = turbofish.args.to_token_stream().to_string().parse::<usize>() else { return };
        let longer = LitInt::new(&(bytes + 1).to_string(), Span::call_site());
        let (receiver, arguments) = (&call.receiver, &call.args);
        let mutated = quote! {
            if #receiver.window::<#longer>(#arguments).is_none() { None } else { #call }
        };
        let (span, own) = (call.method.span(), quote!(#call));
        *expr = self.either(span, format!("the window of {bytes} bytes is one longer"), &mutated, &own);
    }

    /// Adds the mutants of a condition: taken always and taken never. A condition with a binding is only
    /// taken never.
    fn condition(&mut self, span: Span, condition: &mut Expr, always: bool) {
        let never = self.note(span, "the branch is never taken");
        if has_let(condition) {
            let mut leftmost = &mut *condition;
            while matches!(leftmost, Expr::Binary(_)) {
                let Expr::Binary(binary) = leftmost else { return };
                leftmost = &mut binary.left;
            }
            let first = leftmost.to_token_stream();
            *leftmost = Expr::Verbatim(quote!(!crate::mutant::is(#never) && #first));
            return;
        }
        let own = condition.to_token_stream();
        let guarded = quote!(!crate::mutant::is(#never) && (#own));
        *condition = if always {
            let always = self.note(span, "the branch is always taken");
            parse_quote!((crate::mutant::is(#always) || #guarded))
        } else {
            parse_quote!((#guarded))
        };
    }

    /// Adds the mutants of a match: each arm left out once, and each number in a pattern changed once.
    fn arms(&mut self, arms: Vec<Arm>) -> Vec<Arm> {
        let split: Vec<Arm> = arms.into_iter().flat_map(split).collect();
        let last = split.len().saturating_sub(1);
        // `None` is not a binding that takes all remaining values, although it looks like one.
        let takes_all = |pattern: &Pat| match pattern {
            Pat::Wild(_) => true,
            Pat::Ident(it) => it.ident.to_string().starts_with(|it: char| it.is_ascii_lowercase()),
            _ => false,
        };
        let open = split.last().is_some_and(|arm| arm.guard.is_none() && takes_all(&arm.pat));
        let arm = |(at, mut arm): (usize, Arm)| {
            if at == last || !open {
                return arm;
            }
            let number = self.note(arm.pat.span(), "the arm is left out");
            let mut guards = vec![quote!(!crate::mutant::is(#number))];
            self.pattern(&mut arm.pat, false, &mut guards);
            if let Some((_, guard)) = &arm.guard {
                guards.push(quote!((#guard)));
            }
            let guard = guards.into_iter().reduce(|all, one| quote!(#all && #one));
            arm.guard = guard.map(|guard| (parse_quote!(if), Box::new(Expr::Verbatim(guard))));
            arm
        };
        split.into_iter().enumerate().map(arm).collect()
    }

    /// Removes the numbers from a pattern, and adds comparisons with them to `guards`.
    fn pattern(&mut self, pattern: &mut Pat, behind_reference: bool, guards: &mut Vec<TokenStream>) {
        if is_number(pattern) {
            let binding = format_ident!("bound_{}", self.mutants.len());
            let value = if behind_reference { quote!(*#binding) } else { quote!(#binding) };
            let test = self.test(pattern, &value);
            guards.push(quote!((#test)));
            *pattern = parse_quote!(#binding);
            return;
        }
        let inner =
            |it: &mut Punctuated<Pat, syn::Token![,]>, this: &mut Self, behind, guards: &mut Vec<_>| {
                it.iter_mut().for_each(|pattern| this.pattern(pattern, behind, guards));
            };
        match pattern {
            Pat::Tuple(it) => inner(&mut it.elems, self, behind_reference, guards),
            Pat::TupleStruct(it) => inner(&mut it.elems, self, behind_reference, guards),
            Pat::Slice(it) => inner(&mut it.elems, self, true, guards),
            _ => {}
        }
    }

    /// Returns the test of a value against a pattern, with each number of the pattern changed once.
    fn test(&mut self, pattern: &Pat, value: &TokenStream) -> TokenStream {
        match pattern {
            Pat::Or(it) => {
                let tests: Vec<_> = it.cases.iter().map(|case| self.test(case, value)).collect();
                quote!(#((#tests))||*)
            }
            Pat::Range(it) => {
                let ends: Vec<_> =
                    [&it.start, &it.end].into_iter().flatten().map(|end| self.number(end)).collect();
                let [first, last] = &ends[..] else { return quote!(matches!(#value, #it)) };
                quote!(#value >= #first && #value <= #last)
            }
            Pat::Lit(it) => {
                let number = self.number(&Expr::Lit(it.clone()));
                quote!(#value == #number)
            }
            Pat::Path(it) => {
                let number = self.number(&Expr::Path(it.clone()));
                quote!(#value == #number)
            }
            other => quote!(matches!(#value, #other)),
        }
    }

    fn number(&mut self, expr: &Expr) -> Expr {
        let mut expr = expr.clone();
        self.visit_expr_mut(&mut expr);
        expr
    }

    fn rewrite_match(&mut self, it: &mut ExprMatch) {
        self.visit_expr_mut(&mut it.expr);
        for arm in &mut it.arms {
            if let Some((_, guard)) = &mut arm.guard {
                self.visit_expr_mut(guard);
            }
            self.visit_expr_mut(&mut arm.body);
        }
        it.arms = self.arms(std::mem::take(&mut it.arms));
    }
}

/// Returns true if a pattern consists of numbers alone.
fn is_number(pattern: &Pat) -> bool {
    match pattern {
        Pat::Lit(it) => matches!(it.lit, Lit::Int(_)),
        Pat::Path(it) => constant(&it.path).is_some(),
        Pat::Ident(it) => it.subpat.is_none() && constant(&it.ident.clone().into()).is_some(),
        Pat::Range(it) => it.start.is_some() && it.end.is_some(),
        Pat::Or(it) => it.cases.iter().all(is_number),
        _ => false,
    }
}

/// Splits an arm with alternatives into an arm for each, unless the alternatives are numbers.
fn split(arm: Arm) -> Vec<Arm> {
    match &arm.pat {
        Pat::Or(it) if !is_number(&arm.pat) => {
            it.cases.iter().map(|case| Arm { pat: case.clone(), ..arm.clone() }).collect()
        }
        _ => vec![arm],
    }
}

/// Rewrites `matches!(value, pattern if guard)` as a match.
fn as_match(tokens: &TokenStream) -> Option<ExprMatch> {
    let parse = |input: syn::parse::ParseStream<'_>| {
        let value: Expr = input.parse()?;
        input.parse::<syn::Token![,]>()?;
        let pattern = Pat::parse_multi_with_leading_vert(input)?;
        let guard =
            if input.parse::<Option<syn::Token![if]>>()?.is_some() { Some(input.parse()?) } else { None };
        input.parse::<Option<syn::Token![,]>>()?;
        Ok((value, pattern, guard))
    };
    let (value, pattern, guard): (Expr, Pat, Option<Expr>) =
        syn::parse::Parser::parse2(parse, tokens.clone()).ok()?;
    Some(match guard {
        Some(guard) => parse_quote!(match #value { #pattern if #guard => true, _ => false }),
        None => parse_quote!(match #value { #pattern => true, _ => false }),
    })
}

impl VisitMut for Rewriting<'_> {
    fn visit_item_mut(&mut self, item: &mut Item) {
        match item {
            Item::Fn(_) | Item::Impl(_) | Item::Trait(_) => visit_mut::visit_item_mut(self, item),
            Item::Const(constant) if self.computed.contains(&constant.ident.to_string()) => {
                let (name, kind, mut value) = (&constant.ident, &constant.ty, constant.expr.clone());
                self.visit_expr_mut(&mut value);
                *item = parse_quote!(#[allow(non_snake_case)] fn #name() -> #kind { #value });
            }
            _ => {}
        }
    }

    fn visit_trait_item_mut(&mut self, item: &mut syn::TraitItem) {
        if matches!(item, syn::TraitItem::Fn(_)) {
            visit_mut::visit_trait_item_mut(self, item);
        }
    }

    fn visit_impl_item_mut(&mut self, item: &mut syn::ImplItem) {
        if matches!(item, syn::ImplItem::Fn(_)) {
            visit_mut::visit_impl_item_mut(self, item);
        }
    }

    fn visit_signature_mut(&mut self, signature: &mut syn::Signature) {
        // The chosen mutant is not known at compile time.
        signature.constness = None;
    }

    fn visit_stmt_mut(&mut self, statement: &mut Stmt) {
        match statement {
            // A constant that a function computes becomes a variable: the function is no longer `const`.
            Stmt::Item(Item::Const(constant)) if matches!(*constant.expr, Expr::Call(_)) => {
                let (name, kind, mut value) = (&constant.ident, &constant.ty, constant.expr.clone());
                self.visit_expr_mut(&mut value);
                *statement = parse_quote!(let #name: #kind = #value;);
            }
            Stmt::Item(_) | Stmt::Macro(_) => {}
            other => visit_mut::visit_stmt_mut(self, other),
        }
    }

    fn visit_type_mut(&mut self, _: &mut syn::Type) {}
    fn visit_pat_mut(&mut self, _: &mut Pat) {}
    fn visit_attribute_mut(&mut self, _: &mut syn::Attribute) {}
    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Macro(it) if it.mac.path.is_ident("matches") => {
                let Some(mut found) = as_match(&it.mac.tokens) else { return };
                self.rewrite_match(&mut found);
                *expr = parse_quote!((#found));
                return;
            }
            Expr::Const(_) | Expr::Repeat(_) | Expr::Verbatim(_) | Expr::Macro(_) => return,
            Expr::Match(it) => return self.rewrite_match(it),
            Expr::Call(it) => {
                // The name of a called function is not a value.
                it.args.iter_mut().for_each(|argument| self.visit_expr_mut(argument));
            }
            Expr::Index(it) => {
                // A constant with an index is an array, not a number.
                if !matches!(*it.expr, Expr::Path(_)) {
                    self.visit_expr_mut(&mut it.expr);
                }
                self.visit_expr_mut(&mut it.index);
            }
            Expr::If(it) => {
                self.visit_expr_mut(&mut it.cond);
                self.condition(it.if_token.span, &mut it.cond, true);
                self.visit_block_mut(&mut it.then_branch);
                if let Some((_, other)) = &mut it.else_branch {
                    self.visit_expr_mut(other);
                }
                return;
            }
            Expr::While(it) => {
                self.visit_expr_mut(&mut it.cond);
                self.condition(it.while_token.span, &mut it.cond, false);
                self.visit_block_mut(&mut it.body);
                return;
            }
            _ => visit_mut::visit_expr_mut(self, expr),
        }
        match expr {
            Expr::Binary(_) => self.binary(expr),
            Expr::Path(_) => self.path(expr),
            Expr::Call(_) => self.call(expr),
            Expr::MethodCall(_) => self.window(expr),
            Expr::Unary(it) if matches!(it.op, UnOp::Not(_)) => {
                let (span, inner, own) = (it.span(), it.expr.to_token_stream(), it.to_token_stream());
                *expr = self.either(span, "the negation goes", &inner, &own);
            }
            Expr::Lit(it) => {
                if let Lit::Int(number) = &it.lit
                    && let Some(other) = adjacent(number)
                {
                    let change = format!("{number} becomes {other}");
                    let (span, own) = (number.span(), quote!(#number));
                    *expr = self.either(span, change, &quote!(#other), &own);
                }
            }
            _ => {}
        }
    }
}
