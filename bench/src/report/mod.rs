//! Presents the figures to people: tables on the terminal, tables and plots in `docs/performance.md`.

mod line_rate;
mod page;
mod plot;
mod plots;
mod tables;
mod targets;

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use pomguard_workspace as workspace;

use self::tables::Sheet;
use super::figures::{Circumstances, Figures};

/// Path of the recorded figures, from the workspace's root.
const FIGURES: &str = "docs/performance/figures.json";
/// Folder of the plots, from the workspace's root.
const PLOTS: &str = "docs/performance";
/// Path of the page, from the workspace's root.
const PAGE: &str = "docs/performance.md";

/// A part of the page. `name` is the name in its marks.
struct Section {
    name: &'static str,
    circumstances: Option<Circumstances>,
    sheets: Vec<Sheet>,
    /// File name and content.
    plots: Vec<(&'static str, String)>,
}

/// Prints all measured figures.
pub(super) fn print(figures: &Figures) -> Result<()> {
    for section in sections(figures)? {
        for sheet in &section.sheets {
            println!("\n{}\n\n{}", sheet.title, sheet.table);
        }
    }
    Ok(())
}

/// Writes figures, plots and page. Parts that were not measured keep their recorded figures.
pub(super) fn record(figures: &Figures) -> Result<()> {
    let root = workspace::root();
    let figures = figures.clone().over(Figures::read(&root.join(FIGURES))?);
    figures.write(&root.join(FIGURES))?;
    let path = root.join(PAGE);
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for section in sections(&figures)? {
        for (name, svg) in &section.plots {
            let path = root.join(PLOTS).join(name);
            fs::write(&path, svg).with_context(|| path.display().to_string())?;
        }
        text = page::fill(&text, section.name, &section.markdown()?)?;
    }
    fs::write(&path, text).with_context(|| path.display().to_string())
}

impl Section {
    fn markdown(&self) -> Result<String> {
        let mut text = String::new();
        if let Some(it) = &self.circumstances {
            let Circumstances { date, kernel, processor, processors, command } = it;
            writeln!(text, "*{date}, Linux {kernel}, {processors} × {processor}: `{command}`*")?;
        }
        for (name, _) in &self.plots {
            let alt = name.trim_end_matches(".svg").replace('-', " ");
            writeln!(text, "\n![{alt}](performance/{name})")?;
        }
        for sheet in &self.sheets {
            writeln!(text, "\n{}\n\n{}", sheet.title, sheet.table)?;
        }
        Ok(text)
    }
}

fn sections(figures: &Figures) -> Result<Vec<Section>> {
    let section = |name, circumstances: Option<&Circumstances>, sheets| Section {
        name,
        circumstances: circumstances.cloned(),
        sheets,
        plots: Vec::new(),
    };
    let mut all = vec![section("targets", None, vec![targets::sheet(figures)])];
    if let Some(part) = &figures.program {
        let plots = plots::program(&part.figures)?;
        let sheets = vec![tables::program(&part.figures)];
        all.push(Section { plots, ..section("program", Some(&part.circumstances), sheets) });
    }
    if let Some(part) = &figures.live {
        all.push(section("operators", Some(&part.circumstances), vec![tables::operators(&part.figures)]));
        let plots = plots::live(&part.figures)?;
        let sheets = tables::live(&part.figures);
        all.push(Section { plots, ..section("live", Some(&part.circumstances), sheets) });
    }
    if let Some(part) = &figures.change {
        all.push(section("change", Some(&part.circumstances), vec![tables::change(&part.figures)]));
    }
    if let Some(part) = &figures.service {
        all.push(section("service", Some(&part.circumstances), vec![tables::service(&part.figures)]));
    }
    if let Some(part) = &figures.footprint {
        all.push(section("footprint", Some(&part.circumstances), vec![tables::footprint(&part.figures)]));
    }
    if let Some(sheet) = line_rate::sheet(figures) {
        all.push(section("paper", None, vec![sheet]));
    }
    Ok(all)
}
