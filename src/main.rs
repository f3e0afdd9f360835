//! Parses the command line, runs the command, reports the result.

use std::process::ExitCode;

use podstrap::cli::{Cli, Command, TERMINATION_LOG};
use podstrap::{report, telemetry};

fn main() -> ExitCode {
    let cli = match Cli::try_parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // The flag itself may be invalid, so use only its variable and its default.
            let last_words = std::env::var_os("PODSTRAP_TERMINATION_LOG").unwrap_or_else(|| TERMINATION_LOG.into());
            report::usage(&error, last_words.as_ref());
            error.exit()
        }
    };
    let format = cli.global.log_format;
    // A probe of a container must not replace the message of its main process.
    let last_words = (!matches!(cli.command, Command::Status(_))).then(|| cli.global.termination_log.clone());
    telemetry::init(format, cli.global.log_level);
    match podstrap::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error, format, last_words.as_deref());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
