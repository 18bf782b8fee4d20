//! Reads the text files into a [`Draft`]: typed values, each with its file and line. Reports all faults of a
//! file at once.
//!
//! Nothing here depends on the machine, except the check of who could change the files ([`files`]). `policy`
//! chooses the host and its rows.

use std::path::Path;

pub mod address;
pub mod diagnostic;
pub mod files;
pub mod keys;
pub mod matrix;
pub mod ports;
pub mod settings;
pub mod site;
pub mod sources;
mod spelling;
mod text;
mod walk;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use files::Files;
pub use matrix::Matrix;
pub use settings::Settings;
pub use site::Site;
pub use sources::Sources;
pub use text::At;

pub(crate) use spelling::nearest as nearest_name;

/// The contents of all files, checked file by file, not yet applied to a host.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The port matrix.
    pub matrix: Matrix,
    /// The inventory: which addresses run which systems.
    pub site: Site,
    /// The settings of this server.
    pub settings: Settings,
}

impl Draft {
    /// Reads `pomguard.toml`, the site file that it names and the matrix that the site file names. A process
    /// that runs as root refuses files that another user could change.
    pub fn load(settings: &Path) -> Result<Self, Diagnostics> {
        Self::read(&mut Files::of_process(), settings)
    }

    /// Reads the same files as [`Self::load`], and lets `files` decide who may change them.
    pub fn read(files: &mut Files, settings: &Path) -> Result<Self, Diagnostics> {
        let path = settings;
        let settings = match Settings::read(files, path) {
            Ok(settings) => settings,
            Err(faults) => {
                let site = Settings::site_named(files, path);
                return Err(Self::with_site_faults(files, faults, site.as_deref()));
            }
        };
        let site = settings.site.clone();
        Self::with_settings(files, settings, &site)
    }

    /// Adds the faults of the site file to the faults of the settings, so that both are shown at once.
    pub fn with_site_faults(files: &mut Files, mut faults: Diagnostics, site: Option<&Path>) -> Diagnostics {
        if let Some(site) = site {
            faults.extend(Self::with_settings(files, Settings::without_file(site), site).err());
        }
        faults.sorted()
    }

    /// Reads the site file at `site` and its matrix, under settings that were read before.
    pub fn with_settings(files: &mut Files, settings: Settings, site: &Path) -> Result<Self, Diagnostics> {
        if let Some(owner) = &settings.file_owner {
            files.entrust(&owner.value, &owner.origin, &settings.control_group)?;
        }
        Self::of(settings, site::load(files, site)?)
    }

    /// Parses the texts of an earlier reading.
    pub fn from_sources(sources: &Sources) -> Result<Self, Diagnostics> {
        let settings = Settings::parse(&sources.settings.name, &sources.settings.text)?;
        let matrix = Matrix::parse(&sources.matrix.name, &sources.matrix.text)?;
        Self::of(settings, site::parse_with(&sources.site.name, &sources.site.text, matrix)?)
    }

    /// Returns the texts that this draft was read from.
    pub fn sources(&self) -> Sources {
        Sources {
            settings: self.settings.source.clone(),
            site: self.site.source.clone(),
            matrix: self.matrix.source.clone(),
        }
    }

    fn of(settings: Settings, (site, matrix): (Site, Matrix)) -> Result<Self, Diagnostics> {
        let mut faults = Diagnostics::default();
        settings.check_rows(&matrix, &mut faults);
        faults.into_result(Self { matrix, site, settings })
    }

    /// Parses texts in memory. Each pair is the name for messages and the text.
    pub fn from_texts(settings: (&str, &str), site: (&str, &str)) -> Result<Self, Diagnostics> {
        let settings = Settings::parse(settings.0, settings.1);
        let site = site::parse(site.0, site.1, Path::new("."));
        let (settings, (site, matrix)) = match (settings, site) {
            (Ok(settings), Ok(site)) => (settings, site),
            (settings, site) => {
                let mut faults = Diagnostics::default();
                faults.extend(settings.err());
                faults.extend(site.err());
                return Err(faults.sorted());
            }
        };
        Self::of(settings, (site, matrix))
    }
}

#[cfg(test)]
mod tests;
