//! Writes the man pages, one for podstrap and one per subcommand: `cargo run --example man -- DIR`

use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{env, fs};

use clap::CommandFactory;
use podstrap::cli::Cli;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = env::args_os().nth(1).map(PathBuf::from).ok_or("usage: cargo run --example man -- DIR")?;
    // As in the images, so that two builds of one commit write the same pages.
    let now = match env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.parse()?),
        Err(_) => SystemTime::now(),
    };
    let date = humantime::format_rfc3339(now).to_string()[..10].to_owned();
    let mut podstrap = Cli::command().disable_help_subcommand(true);
    podstrap.build();
    fs::create_dir_all(&dir)?;
    for command in podstrap.get_subcommands().filter(|command| !command.is_hide_set()).chain([&podstrap]) {
        let page = clap_mangen::Man::new(command.clone())
            .date(&date)
            .source(concat!("podstrap ", env!("CARGO_PKG_VERSION")))
            .manual("podstrap");
        let mut text = Vec::new();
        page.render(&mut text)?;
        // The two line breaks before the values of a flag are one blank line. mandoc warns about them.
        let text = String::from_utf8(text)?.replace(".br\n\n.br\n", ".sp\n");
        fs::write(dir.join(page.get_filename()), text)?;
    }
    Ok(())
}
