"""A .tac file: a server on a disk with faults. The file `fault` has the kind of the call that fails, the code of SQLite
for its result, and the seconds that it takes. The first such call creates the file `reached`."""

import time
from pathlib import Path

from twisted.application.service import Application

from tests.faulty_disk import OK, faulty_disk
from twistedsock import make_service

TCP = "tcp:0:interface=127.0.0.1"


def before(kind: str, path: Path) -> int:
    try:
        failing, code, seconds = Path("fault").read_text().split()
    except FileNotFoundError:
        return OK
    if kind != failing:
        return OK
    Path("reached").touch()
    time.sleep(float(seconds))
    return int(code)


layer = faulty_disk()
layer.__enter__().before = before
application = Application("faulty")
make_service({"tcp": TCP, "web": TCP, "state": "state"}).setServiceParent(application)
