//! Writes frames of every kind that the generator makes, and the shipped files, into a corpus folder, so that
//! a short run starts behind the first branches: `cargo run --example seeds -- CORPUS`.

use std::{env, fs, io, path::Path, process::ExitCode};

use pomguard::policy::Direction;
use pomguard_tests::random::{Random, Stream};

/// Frames of each direction.
const FRAMES: usize = 500;
/// Fixed, so that two runs start with the same frames.
const SEED: u64 = 1;

fn main() -> ExitCode {
    let Some(corpus) = env::args_os().nth(1) else {
        eprintln!("seeds: name the corpus folder");
        return ExitCode::from(2);
    };
    match lay(Path::new(&corpus)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seeds: {}: {error}", Path::new(&corpus).display());
            ExitCode::FAILURE
        }
    }
}

fn lay(corpus: &Path) -> io::Result<()> {
    let files: [(&str, &[u8]); 3] = [
        ("matrix", include_bytes!("../../config/matrix/pom-4.0.toml")),
        ("site", include_bytes!("../../config/site.example.toml")),
        ("settings", include_bytes!("../../config/pomguard.toml")),
    ];
    for (target, text) in files {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("shipped"), text)?;
    }
    let folder = corpus.join("packet");
    fs::create_dir_all(&folder)?;
    let mut stream = Stream::new(Random(SEED));
    for direction in Direction::ALL {
        for number in 0..FRAMES {
            let mut input = vec![direction.index() as u8];
            input.extend(stream.frame(direction));
            fs::write(folder.join(format!("{}-{number}", direction.name())), input)?;
        }
    }
    Ok(())
}
