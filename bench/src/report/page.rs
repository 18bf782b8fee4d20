//! The page's figures are between marks; the text around them is written by hand.

use anyhow::{Result, bail};

/// Replaces the text between the marks of a section.
pub(super) fn fill(page: &str, section: &str, figures: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- figures: {section} -->\n"), format!("<!-- end: {section} -->"));
    let parts = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match parts {
        Some((before, after)) => Ok(format!("{before}{begin}\n{}\n\n{end}{after}", figures.trim())),
        None => bail!("the page has no marks for {section}: {} … {end}", begin.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n\n<!-- figures: one -->\nold\n<!-- end: one -->\n\nB\n";

    #[test]
    fn figures_are_replaced_and_words_stay() {
        let filled = fill(PAGE, "one", "| new |\n").unwrap();
        assert_eq!(filled, "# A\n\n<!-- figures: one -->\n\n| new |\n\n<!-- end: one -->\n\nB\n");
        assert_eq!(fill(&filled, "one", "| new |").unwrap(), filled);
    }

    #[test]
    fn a_page_without_the_marks_is_left_alone() {
        assert!(fill(PAGE, "two", "| new |").is_err());
    }
}
