//! Every input that once made a target fail, by the defect that it showed.

#[test]
fn the_shipped_files_are_accepted_by_their_readers() {
    let matrix = include_bytes!("../../config/matrix/pom-4.0.toml");
    let site = include_bytes!("../../config/site.example.toml");
    let settings = include_bytes!("../../config/pomguard.toml");
    crate::matrix(matrix);
    crate::site(site);
    crate::settings(settings);
    // A reader that refused everything would pass the targets, too.
    let text = std::str::from_utf8(matrix).unwrap();
    assert!(pomguard::input::Matrix::parse("matrix.toml", text).is_ok());
}

#[test]
fn site_file_cut_anywhere_is_accepted_or_refused_in_place() {
    let site = include_bytes!("../../config/site.example.toml");
    for end in (0..site.len()).step_by(7) {
        crate::site(&site[..end]);
    }
}
