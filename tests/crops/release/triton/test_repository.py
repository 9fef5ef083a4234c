"""What Triton gets of this project is enough to import its model: nothing else of it is there."""

import shutil
import subprocess
import sys
from pathlib import Path

import crops
from crops.release.triton import repository


def test_the_copied_files_import_nothing_of_the_project_that_is_not_copied(tmp_path):
    for file in repository.LIBRARY:
        (tmp_path / "crops" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(crops.__path__[0]) / file, tmp_path / "crops" / file)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import crops.release.encoder; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'crops'))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(tmp_path)) for path in done.stdout.split())
