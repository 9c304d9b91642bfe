//! The program `s0`.

fn main() -> std::process::ExitCode {
    s0_cli::main()
}
