//! The metrics page in the format that a scraper asks for.

/// Content type of a page from [`super::metrics::page`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of a page from [`classic`].
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns true if an `Accept` header asks for OpenMetrics. Other clients (curl, a browser, promtool) get the
/// classic format, which every client can read.
#[must_use]
pub fn wants_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        // RFC 9110 12.4.2: a weight of zero is a refusal.
        let refused = parts
            .filter_map(|part| part.split_once('='))
            .any(|(key, weight)| key.trim().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0));
        kind.eq_ignore_ascii_case("application/openmetrics-text") && !refused
    })
}

/// Returns the OpenMetrics page in the classic text format (version 0.0.4).
///
/// The samples are the same in both; in the classic format the headers carry the sample's full name, there is
/// no kind `info`, and no end mark. Working by line is correct: both formats escape line ends inside labels
/// and help.
#[must_use]
pub fn classic(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + 1024);
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some((name, text)) = header(line, "# HELP ") {
            help = Some((name, text));
        } else if let Some((name, kind)) = header(line, "# TYPE ") {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            if let Some((_, text)) = help.take().filter(|(helped, _)| *helped == name) {
                push_line(&mut out, &["# HELP ", name, suffix, " ", text]);
            }
            push_line(&mut out, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push_line(&mut out, &[line]);
        }
    }
    out
}

fn header<'a>(line: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(mark)?.split_once(' ')
}

fn push_line(out: &mut String, parts: &[&str]) {
    out.extend(parts.iter().copied());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_openmetrics_and_bare_clients_classic() {
        assert!(wants_openmetrics(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(wants_openmetrics("text/plain, Application/OpenMetrics-Text ; q=0.2"));
        for plain in ["", "*/*", "text/plain", "text/html,*/*;q=0.8", "application/openmetrics-text;q=0"] {
            assert!(!wants_openmetrics(plain), "{plain}");
        }
    }

    #[test]
    fn classic_format_names_the_sample_and_has_no_info_type() {
        let page = "# HELP a_x Help of a.\n# TYPE a_x counter\na_x_total{l=\"# TYPE\"} 1\n\
                    # HELP b Help.\n# TYPE b info\nb_info{v=\"1\"} 1\n# TYPE c gauge\nc 0\n# EOF\n";
        assert_eq!(
            classic(page),
            "# HELP a_x_total Help of a.\n# TYPE a_x_total counter\na_x_total{l=\"# TYPE\"} 1\n\
             # HELP b_info Help.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n# TYPE c gauge\nc 0\n"
        );
    }
}
