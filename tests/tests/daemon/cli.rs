//! Runs pomguard's commands and returns their output.

use std::process::Output;

use pomguard_tests::daemon::Lab;
use serde_json::Value;

/// Returns the whole output.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command and returns its JSON output.
pub(crate) fn json(lab: &Lab, arguments: &[&str]) -> Value {
    let output = lab.pomguard(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", said(&output)))
}

/// Runs a command that must succeed. Returns the output.
pub(crate) fn done(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.pomguard(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// Runs a command that must be refused. Returns the output.
pub(crate) fn refused(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.pomguard(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    said(&output)
}
