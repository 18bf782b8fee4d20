//! Text files into a [`Draft`]: typed, every value with its file and line, all faults of a file at once.
//!
//! Nothing here looks at the machine it runs on, but for who could change the files ([`files`]): `policy` chooses
//! the host and its rows.

use std::path::Path;

pub mod address;
pub mod diagnostic;
pub mod files;
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

/// Everything that was written, checked file by file, not yet applied to a host.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The published table.
    pub matrix: Matrix,
    /// Which addresses run which systems.
    pub site: Site,
    /// How this server enforces.
    pub settings: Settings,
}

impl Draft {
    /// Reads `pomguard.toml`, the site file that it names and the matrix that the site file names. A process of
    /// root's refuses those that somebody else could change.
    pub fn load(settings: &Path) -> Result<Self, Diagnostics> {
        Self::read(&mut Files::of_process(), settings)
    }

    /// The same, with the judgement of `files`.
    pub fn read(files: &mut Files, settings: &Path) -> Result<Self, Diagnostics> {
        let settings = Settings::read(files, settings)?;
        let site = settings.site.clone();
        Self::with_settings(files, settings, &site)
    }

    /// Reads the site file at `site` and its matrix, under settings that were read before.
    pub fn with_settings(files: &mut Files, settings: Settings, site: &Path) -> Result<Self, Diagnostics> {
        if let Some(owner) = &settings.file_owner {
            files.entrust(&owner.value, &owner.origin, &settings.control_group)?;
        }
        Self::of(settings, site::load(files, site)?)
    }

    /// What the texts of an earlier reading mean.
    pub fn from_sources(sources: &Sources) -> Result<Self, Diagnostics> {
        let settings = Settings::parse(&sources.settings.name, &sources.settings.text)?;
        let matrix = Matrix::parse(&sources.matrix.name, &sources.matrix.text)?;
        Self::of(settings, site::parse_with(&sources.site.name, &sources.site.text, matrix)?)
    }

    /// The texts that this was read from.
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

    /// The same from texts in memory, under the names that messages give them.
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
