"""Exported symbols against the public headers, and every public struct against the layout table.

    exports.py TOP LIBRARY [mpi]: with mpi, LIBRARY is prefopt-mpi and its header mpi.h; else mpi.h is left out
"""
import ctypes
import pathlib
import re
import subprocess
import sys


def declarations(text):
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    return set(re.findall(r"PREFOPT_API[^;(]*?\b(prefopt_\w+)\s*\(", text))


def structs(text):
    """{struct: [field, ...]} of a header."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    found = {}
    for name, body in re.findall(r"typedef struct (\w+)\s*\{(.*?)\n\}\s*\1\s*;", text, flags=re.S):
        fields = []
        for statement in body.split(";"):
            statement = " ".join(statement.split())
            if not statement:
                continue
            pointer = re.search(r"\(\*(\w+)\)", statement)
            if pointer:
                fields.append(pointer.group(1))
            else:
                fields += [re.search(r"(\w+)$", part.strip()).group(1) for part in statement.split(",")]
        found[name] = fields
    return found


def main(top, library, mpi):
    headers = [path for path in sorted((top / "include/prefopt").glob("*.h")) if (path.stem == "mpi") == mpi]
    text = "\n".join(path.read_text() for path in headers)
    declared = declarations(text)
    listing = subprocess.run(["nm", "-D", "--defined-only", library], check=True,
                             capture_output=True, text=True).stdout
    exported = {line.split()[2].split("@")[0] for line in listing.splitlines()
                if line.split()[1] in "TDBRVW"}
    faults = [f"declared but not exported: {name}" for name in sorted(declared - exported)]
    faults += [f"exported but not declared: {name}" for name in sorted(exported - declared)]
    found = structs(text)
    if not mpi:
        lib = ctypes.CDLL(library)
        lib.prefopt_sizeof.restype = lib.prefopt_offsetof.restype = ctypes.c_int64
    for name, fields in found.items():
        size = lib.prefopt_sizeof(name.encode())
        if size < 0:
            faults.append(f"prefopt_sizeof does not know {name}")
            continue
        last = -1
        for field in fields:
            offset = lib.prefopt_offsetof(name.encode(), field.encode())
            if not last < offset < size:
                faults.append(f"prefopt_offsetof({name}, {field}) is {offset}")
            last = offset
    for fault in faults:
        print(fault)
    print(f"{len(declared)} functions, {len(found)} structs")
    return 1 if faults or not declared or bool(found) == mpi else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["mpi"]))
