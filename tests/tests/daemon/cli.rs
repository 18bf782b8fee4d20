//! What a verb of pomguard says.

use std::process::Output;

use pomguard_tests::daemon::Lab;
use serde_json::Value;

/// All of it.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a verb; what it says as JSON.
pub(crate) fn json(lab: &Lab, arguments: &[&str]) -> Value {
    let output = lab.pomguard(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", said(&output)))
}

/// Runs a verb that must succeed.
pub(crate) fn done(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.pomguard(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// Runs a verb that must be refused; why it was.
pub(crate) fn refused(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.pomguard(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    said(&output)
}
