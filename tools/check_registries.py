# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Every extension file is in its list, and every line of a list has its file.

registry.def, routes.def   NAME(kThing, ...): the object kThing is defined in one .cc beside the list;
                           nothing of the same type beside it is missing from the list; in a folder
                           of extensions every .cc defines one.
table.def                  NAME(thing): some .cc beside the list, or an .inl file that it includes,
                           defines a function `thing`.
dispatch_*.def             ISA(folder, feature, base): the folder has a table.def; all such folders are listed.
"""

import re

from sources import ROOT, finish, read, tracked_files, without_comments, without_comments_and_strings

_ENTRY = re.compile(r"^\s*([A-Z_0-9]+)\(\s*(\w+)[^)]*\)", re.MULTILINE)
_INLINE = re.compile(r'^\s*#\s*include\s*"([^"]+\.inl)"', re.MULTILINE)
_OBJECT = re.compile(r"^extern\s+(?:constinit\s+)?const\s+([\w:]+)\s+(\w+)\s*[{(=]", re.MULTILINE)


def entries(root, path):
    return [match.groups() for match in _ENTRY.finditer(without_comments(read(root, path)))]


def neighbours(files, folder):
    return [path for path in files
            if path.parent == folder and path.suffix == ".cc" and not path.stem.endswith("_test")]


def duplicates(path, names):
    return [f"{path}: '{name}' is listed twice" for name in sorted(set(names))
            if names.count(name) > 1]


def check_objects(root, files, path):
    names = [name for _, name in entries(root, path)]
    found = duplicates(path, names)
    places, types, per_file = {}, {}, {}
    for source in neighbours(files, path.parent):
        for kind, name in _OBJECT.findall(without_comments_and_strings(read(root, source))):
            places.setdefault(name, []).append(source)
            types[name] = kind
            per_file.setdefault(source, []).append(name)
    for name in names:
        if len(places.get(name, [])) != 1:
            found.append(f"{path}: '{name}' is defined in {len(places.get(name, []))} files beside "
                         "the list, expected one `extern const Type name{...}`")
    listed_types = {types[name] for name in names if name in types}
    for name, kind in types.items():
        if kind in listed_types and name not in names:
            found.append(f"{path}: add the line for '{name}' of {places[name][0]}")
    if len(path.parts) > 3:  # src/<module>/<folder>/registry.def: a folder of extensions only
        for source in neighbours(files, path.parent):
            if not set(per_file.get(source, [])) & set(names):
                found.append(f"{source}: defines nothing that {path.name} lists; an extension needs "
                             "its line there, a helper belongs in the folder above")
    return found


def check_table(root, files, path):
    names = [name for _, name in entries(root, path)]
    found = duplicates(path, names)
    sources = neighbours(files, path.parent)
    sources += {f"src/{include}" for source in sources
                for include in _INLINE.findall(read(root, source)) if (root / "src" / include).is_file()}
    text = "\n".join(without_comments_and_strings(read(root, source)) for source in sources)
    for name in names:
        if not re.search(rf"\b{name}\s*\(", text):
            found.append(f"{path}: no file beside it defines '{name}'")
    return found


def check_dispatch(root, files, paths):
    found, listed = [], set()
    for path in paths:
        names = [name for _, name in entries(root, path)]
        found += duplicates(path, names)
        listed |= {path.parent / name for name in names}
        found += [f"{path}: folder {path.parent / name} has no table.def" for name in names
                  if path.parent / name / "table.def" not in files]
    for table in (path for path in files if path.name == "table.def"):
        if table.parent not in listed:
            found.append(f"{table}: its folder is in no dispatch_*.def, so it is never used")
    return found


def problems(root):
    files = [path for path in tracked_files(root) if path.parts[0] == "src"]
    found = []
    for path in files:
        if path.name in ("registry.def", "routes.def"):
            found += check_objects(root, files, path)
        elif path.name == "table.def":
            found += check_table(root, files, path)
    dispatch = [path for path in files if re.fullmatch(r"dispatch_\w+\.def", path.name)]
    return found + check_dispatch(root, files, dispatch)


if __name__ == "__main__":
    count = sum(path.suffix == ".def" for path in tracked_files(ROOT))
    finish(problems(ROOT), f"{count} lists agree with their folders")
