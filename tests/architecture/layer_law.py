"""The law of the rooms: a room of lib/ includes itself and rooms above it, never one below.

    layer_law.py TOP

Also: loss and the rooms from data to online do not see each other; only lib/math sees BLIS; file names
are unique; examples, lib/mpi and the header mpi.h use the public headers alone.
"""
import pathlib
import re
import sys

ROOMS = ["base", "math", "loss", "data", "model", "online", "train", "report"]
APART = {("data", "loss"), ("model", "loss"), ("online", "loss")}
# Public headers that are not named after their room.
ROOM_OF_HEADER = {"policy_gradient": "loss", "kl": "loss", "logits": "math", "ppo": "loss",
                  "strengths": "train", "tokenizer": "data", "text": "data", "transformer": "model",
                  "prefopt": None}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]', re.M)


def public_room(path):
    stem = pathlib.PurePath(path).stem
    return ROOM_OF_HEADER.get(stem, stem if stem in ROOMS else "?")


def included_room(name, public):
    """The room that an include names; None for the system's headers."""
    parts = name.split("/")
    if parts[0] == "prefopt":
        return public_room(name)
    if len(parts) == 2 and parts[0] in ROOMS:
        return parts[0]
    if public and len(parts) == 1 and name.endswith(".h"):
        return public_room(name) if public_room(name) != "?" else None
    return None


def main(top):
    faults = []

    def check(path, room, public=False):
        for name in INCLUDE.findall(path.read_text()):
            other = included_room(name, public)
            if "blis" in name and room != "math":
                faults.append(f"{path}: includes {name}: only lib/math may")
            if other is None or other == room:
                continue
            if other == "?":
                faults.append(f"{path}: includes {name}, which is of no known room")
            elif ROOMS.index(other) > ROOMS.index(room):
                faults.append(f"{path}: room {room} includes {name} of {other}, which is below it")
            elif (room, other) in APART:
                faults.append(f"{path}: room {room} includes {name}: it must not see {other}")

    files = 0
    for room in ROOMS:
        for path in sorted((top / "lib" / room).glob("*.[ch]")):
            check(path, room)
            files += 1
    for path in sorted((top / "include/prefopt").glob("*.h")):
        if path.stem not in ("prefopt", "mpi"):
            room = public_room(path)
            if room == "?":
                faults.append(f"{path}: of no known room")
            else:
                check(path, room, public=True)
        files += 1
    outside = [*(top / "examples").rglob("*.[ch]"), *(top / "lib/mpi").glob("*.[ch]"),
               top / "include/prefopt/mpi.h"]
    for path in sorted(outside):
        for name in INCLUDE.findall(path.read_text()):
            if included_room(name, False) and not name.startswith("prefopt/"):
                faults.append(f"{path}: includes {name}: it may use the public headers alone")
        files += 1
    seen = {}
    for folder in ("lib", "include", "examples", "bench", "tests", "python"):
        for path in (top / folder).rglob("*"):
            if path.suffix not in (".c", ".h", ".py", ".sh"):
                continue
            if path.name in seen:
                faults.append(f"{path}: the file name is taken by {seen[path.name]}")
            seen.setdefault(path.name, path)
    for fault in faults:
        print(fault)
    if files < 20:
        print(f"only {files} files were found below {top}")
        return 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
