//! Generated files of the packages: manual pages, completions, the changelog in Debian's format, the SELinux
//! module, the bill of materials. The lists in `pomguard/Cargo.toml` name them below
//! `target/release/package`.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use pomguard_workspace::{self as workspace, process};

use super::{TARGET, sbom, text};

/// The oldest format of a policy module that the tools can write and RHEL 8 can read.
const MODULE_FORM: &str = "19";
const SHELLS: [(&str, &str); 3] = [("bash", "pomguard"), ("zsh", "_pomguard"), ("fish", "pomguard.fish")];

/// Returns the folder that both package tools use as `target/release/package`.
pub(super) fn folder() -> PathBuf {
    workspace::target().join(TARGET).join("release/package")
}

/// Makes the folder again; `binary` is the file that the packages install.
pub(super) fn make(binary: &Path, epoch: u64) -> Result<()> {
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let installed = folder.join("pomguard");
    fs::copy(binary, &installed).with_context(|| format!("copy {}", binary.display()))?;
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755))?;
    manual(&installed, &folder)?;
    for (shell, name) in SHELLS {
        let script = process::output(Command::new(&installed).args(["completions", shell]))?;
        write(&folder.join("completions").join(name), script.as_bytes())?;
    }
    let changelog = folder.join("changelog");
    write(&changelog, debian_changelog(epoch)?.as_bytes())?;
    write(&folder.join("changelog.Debian.gz"), &gzip(&changelog)?)?;
    selinux(&folder)?;
    write(&folder.join("pomguard.cdx.json"), &sbom::make(epoch)?)
}

/// Writes the manual pages, compressed.
fn manual(binary: &Path, folder: &Path) -> Result<()> {
    let (plain, packed) = (folder.join("man-plain"), folder.join("man"));
    process::run(Command::new(binary).args(["man", "--folder"]).arg(&plain))?;
    let mut pages = 0;
    for entry in fs::read_dir(&plain).with_context(|| plain.display().to_string())? {
        let page = entry?.path();
        let name = page.file_name().context("a page without a name")?.to_string_lossy().into_owned();
        write(&packed.join(format!("{name}.gz")), &gzip(&page)?)?;
        pages += 1;
    }
    ensure!(pages > 0, "the binary wrote no manual page");
    Ok(())
}

/// Compresses a file, without its name and time. Returns the compressed bytes.
fn gzip(file: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("gzip");
    command.args(["-9", "--no-name"]).stdin(File::open(file)?).stderr(Stdio::inherit());
    let output = command.output().context("gzip")?;
    ensure!(output.status.success(), "gzip ended with {}", output.status);
    Ok(output.stdout)
}

/// Returns a changelog with one entry for this version. The entry refers to the project's own changelog.
fn debian_changelog(epoch: u64) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let date = jiff::Timestamp::from_second(epoch.try_into()?)?.strftime("%a, %d %b %Y %H:%M:%S +0000");
    Ok(format!(
        "pomguard ({version}-1) unstable; urgency=medium\n\n  * Version {version}: CHANGELOG.md in this folder has the changes.\n\n \
         -- The pomguard authors <maintainers@pomguard.invalid>  {date}\n"
    ))
}

/// Compiles the SELinux module with the distribution's own tools.
fn selinux(folder: &Path) -> Result<()> {
    let tool =
        |name: &str| process::find(name).with_context(|| format!("no {name} here: `cargo xtask setup`"));
    let sources = workspace::root().join("config/selinux");
    let module = folder.join("pomguard.mod");
    let mut compile = Command::new(tool("checkmodule")?);
    compile.args(["-M", "-m", "-c", MODULE_FORM, "-o"]).arg(&module);
    process::run(compile.arg(sources.join("pomguard.te")))?;
    let mut pack = Command::new(tool("semodule_package")?);
    pack.arg("-o").arg(folder.join("pomguard.pp")).arg("-m").arg(&module);
    process::run(pack.arg("-f").arg(sources.join("pomguard.fc")))?;
    fs::remove_file(&module).with_context(|| text(&module).unwrap_or_default().to_owned())
}

/// Writes a file, and makes the folders above it.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).with_context(|| above.display().to_string())?;
    }
    let mut file = File::create(path).with_context(|| path.display().to_string())?;
    file.write_all(content).with_context(|| path.display().to_string())
}
