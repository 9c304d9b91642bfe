//! The program `s0` under the name that editors look for.

fn main() -> std::process::ExitCode {
    s0_cli::main()
}
