"""Fetches llama.cpp's sample vocabularies and chat templates: python fetch.py FOLDER

They are in the source of llama-cpp-python, which pip downloads from wherever the user's pip gets
its packages. FOLDER then holds llama.cpp's models/*.gguf with their .inp and .out files, and
models/templates; it is put in place when it is whole. Only pip is needed: to download a source,
pip asks the package's build system for its name and version, and that of this one is stood in
for below, so that nothing has to be installed or built.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"

WANTED = r".*/llama\.cpp/models/([\w.-]+\.gguf(?:\.inp|\.out)?|templates/[\w.-]+\.jinja)"

BACKEND = f'''
from pathlib import Path

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name = "{PACKAGE.replace("-", "_")}-{VERSION}.dist-info"
    Path(folder, name).mkdir()
    text = "Metadata-Version: 2.1\\nName: {PACKAGE}\\nVersion: {VERSION}\\n"
    Path(folder, name, "METADATA").write_text(text)
    return name
'''


def main():
    target = Path(sys.argv[1])
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        scratch = Path(scratch)
        backend = scratch / "backend" / "scikit_build_core"
        backend.mkdir(parents=True)
        (backend / "__init__.py").write_text("")
        (backend / "build.py").write_text(BACKEND)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            + ["--no-deps", "--no-build-isolation", "--no-binary", PACKAGE]
            + ["--dest", str(scratch / "download"), f"{PACKAGE}=={VERSION}"],
            env={**os.environ, "PYTHONPATH": str(backend.parent)},
            check=True,
        )
        (archive,) = (scratch / "download").glob("*.tar.gz")
        whole = scratch / "whole"
        (whole / "templates").mkdir(parents=True)
        with tarfile.open(archive) as source:
            for member in source:
                name = re.fullmatch(WANTED, member.name)
                if name and member.isfile():
                    (whole / name[1]).write_bytes(source.extractfile(member).read())
        if not any(whole.glob("*.gguf.inp")) or not any(whole.glob("templates/*.jinja")):
            sys.exit("the archive holds no vocabularies or no templates")
        try:
            whole.rename(target)
        except OSError:
            # Another run was faster.
            if not target.is_dir():
                raise


if __name__ == "__main__":
    main()
