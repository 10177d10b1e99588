//! The `siskin` command.

fn main() -> anyhow::Result<()> {
    Ok(())
}
