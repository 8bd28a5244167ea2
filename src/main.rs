//! Chooses a command and an exit code; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloudbeds_auth_proxy::cli::main()
}
