"""The command line."""

import typer

app = typer.Typer(no_args_is_help=True)


@app.command("compile")
def compile_kernels() -> None:
    """Compile the numeric kernels into the cache, so that nothing compiles later."""
