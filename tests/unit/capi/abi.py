"""Compares selvage.h with what was promised before: abi_baseline.c, a list of
every function, struct field and constant as assertions for a C compiler.

  abi.py check HEADER BASELINE       the test
  abi.py renew HEADER BASELINE       writes the baseline, if nothing breaks
  abi.py renew --break ...           even if it does: a new SONAME
  abi.py self-test HEADER BASELINE   changes copies of the header, and checks

Functions, types, constants and what structs have must stay as they are. Structs
may grow at their end, past their old size (never into padding: an older host's
struct_size says nothing about it), because each begins with struct_size.
Everything may be added; then the baseline must be renewed, so that it is
guarded too. (abidiff cannot tell these apart: with the suppression that lets
structs grow it also lets a field of them change its type.)
"""
import os
import re
import subprocess
import sys
import tempfile

PRELUDE = """/* What selvage.h promised, for tests/unit/capi/abi.py. Written by
 * `scripts/abi renew`. Offsets and sizes are those of 64-bit targets. */
/* clang-format off */
#include <stddef.h>
#include HEADER

#define SAME(text, a, b) \\
  _Static_assert(__builtin_types_compatible_p(a, b), text)
#define STRUCT(type, size) _Static_assert(sizeof(type) >= size, #type " shrank")
#define FIELD(type, field, at, ...) \\
  _Static_assert(offsetof(type, field) == at, #type "." #field " moved"); \\
  SAME(#type "." #field " has another type", \\
       __typeof__(((type*)0)->field), __typeof__(__VA_ARGS__))
#define FUNCTION(name, ...) \\
  SAME(#name " has another signature", __typeof__(name), __typeof__(__VA_ARGS__))
#define TYPE(name, ...) SAME(#name " is another type", name, __typeof__(__VA_ARGS__))
#define CONSTANT(name, value) _Static_assert(name == value, #name " has another value")

"""
COMPILER = os.environ.get("CC", "cc")


def clean(text):
    return re.sub(r"\s*\*", "*", " ".join(text.split()))


def declarations(path):
    """[(kind, name, field or None, type or value)] in the order of the header."""
    with open(path) as file:
        text = file.read()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = "\n".join(l for l in text.split("\n") if not l.startswith("#"))
    out = []
    item = re.compile(
        r"typedef struct (?P<struct>\w+) \{(?P<body>.*?)\} (?P=struct);"
        r"|enum \{(?P<enum>.*?)\};"
        r"|typedef (?P<ret>[\w ]+?) ?\(\*(?P<fntype>\w+)\)\((?P<fnargs>[^;]*)\);"
        r"|typedef (?P<scalar>\w+) (?P<name>\w+);"
        r"|SELVAGE_API (?P<fnret>[^;(]*?[ *\n])(?P<fn>selvage_\w+)\((?P<args>[^;]*)\);",
        re.S)
    for m in item.finditer(text):
        if m["struct"]:
            out.append(("STRUCT", m["struct"], None, None))
            for field in filter(str.strip, m["body"].split(";")):
                field = clean(field)
                f = re.fullmatch(r"(.+?) ?\(\*(\w+)\)\((.*)\)", field)
                if f:
                    name, kind = f[2], f"{f[1]} (*)({f[3]})"
                else:
                    f = re.fullmatch(r"(.+?[ *])(\w+)(\[\w+\])?", field)
                    if f is None:
                        sys.exit(f"{m['struct']}: cannot read '{field}'")
                    name, kind = f[2], f[1].strip() + (f[3] or "")
                out.append(("FIELD", m["struct"], name, kind))
        elif m["enum"]:
            for constant in filter(str.strip, m["enum"].split(",")):
                name, value = clean(constant).split(" = ")
                out.append(("CONSTANT", name, None, value))
        elif m["fntype"]:
            out.append(("TYPE", m["fntype"], None,
                        f"{clean(m['ret'])} (*)({clean(m['fnargs'])})"))
        elif m["scalar"]:
            out.append(("TYPE", m["name"], None, m["scalar"]))
        else:
            out.append(("FUNCTION", m["fn"], None,
                        f"{clean(m['fnret'])} ({clean(m['args'])})"))
    return out


def compile_c(source, header, *more):
    return subprocess.run(
        [COMPILER, "-std=c11", f'-DHEADER="{os.path.abspath(header)}"', "-x", "c",
         "-", *more], input=source, capture_output=True, text=True)


def layout(items, header):
    """{struct: size} and {(struct, field): offset}."""
    prints = []
    for kind, name, field, _ in items:
        if kind == "STRUCT":
            prints.append(f'printf("{name} - %zu\\n", sizeof({name}));')
        elif kind == "FIELD":
            prints.append(
                f'printf("{name} {field} %zu\\n", offsetof({name}, {field}));')
    source = ("#include <stddef.h>\n#include <stdio.h>\n#include HEADER\n"
              "int main(void) {" + "\n".join(prints) + "return 0;}")
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "layout")
        done = compile_c(source, header, "-o", program)
        if done.returncode != 0:
            sys.exit(done.stderr)
        lines = subprocess.run([program], check=True, capture_output=True,
                               text=True).stdout.split("\n")
    sizes, offsets = {}, {}
    for name, field, number in (l.split() for l in lines if l):
        if field == "-":
            sizes[name] = int(number)
        else:
            offsets[name, field] = int(number)
    return sizes, offsets


def baseline_lines(header):
    items = declarations(header)
    sizes, offsets = layout(items, header)
    lines = []
    for kind, name, field, what in items:
        if kind == "STRUCT":
            lines.append(f"STRUCT({name}, {sizes[name]});")
        elif kind == "FIELD":
            lines.append(f"FIELD({name}, {field}, {offsets[name, field]}, {what});")
        else:
            lines.append(f"{kind}({name}, {what});")
    return lines


def problems(header, baseline):
    """(what breaks, what is new)."""
    with open(baseline) as file:
        old = file.read()
    broken = []
    done = compile_c(old, header, "-fsyntax-only")
    if done.returncode != 0:
        broken = [re.sub(r'^.*?error: (static assertion failed: )?', "", l)
                  for l in done.stderr.split("\n") if "error:" in l]
        broken = broken or [done.stderr]
    items = declarations(header)
    sizes, offsets = layout(items, header)
    first = {}
    for kind, name, field, what in items:
        if kind == "FIELD" and first.setdefault(name, field) == field:
            if (field, what) != ("struct_size", "uint32_t"):
                broken.append(f"{name} does not begin with uint32_t struct_size")
    old_sizes = {m[1]: int(m[2]) for m in
                 re.finditer(r"^STRUCT\((\w+), (\d+)\);", old, re.M)}
    old_fields = set(re.findall(r"^FIELD\((\w+), (\w+),", old, re.M))
    new = []
    for (name, field), offset in offsets.items():
        if name not in old_sizes or (name, field) in old_fields:
            continue
        if offset < old_sizes[name]:
            broken.append(f"{name}.{field} is new, at {offset}: {name} had "
                          f"{old_sizes[name]} bytes, and new fields come after")
    for name, size in sizes.items():
        if name in old_sizes and size > old_sizes[name]:
            new.append(f"{name} grew from {old_sizes[name]} to {size} bytes: if a "
                       f"release had it, kFirstSize<{name}> is {old_sizes[name]} "
                       "(client/capi/struct_reader.h)")
    known = set(old.split("\n"))
    new += [l for l in baseline_lines(header) if l not in known]
    return broken, new


def renew(header, baseline):
    with open(baseline, "w") as file:
        file.write(PRELUDE + "\n".join(baseline_lines(header)) + "\n")


SELF_TESTS = [  # name, breaks, [(from, to)] on the header
    ("nothing", False, []),
    ("append a field", False, [
        ("0: no limit */\n} selvage_budget;", "*/\nuint64_t more;\n} selvage_budget;")]),
    ("append a function", False, [
        ("SELVAGE_API void selvage_free(",
         "SELVAGE_API void selvage_new(void);\nSELVAGE_API void selvage_free(")]),
    ("append a constant", False, [
        ("SELVAGE_THERMAL_CRITICAL = 3", "SELVAGE_THERMAL_CRITICAL = 3, SELVAGE_X = 4")]),
    ("insert a field", True, [("uint64_t time_ms;", "uint64_t more; uint64_t time_ms;")]),
    ("fill padding", True, [("int32_t enrolled;", "int32_t enrolled; int32_t more;")]),
    ("retype a field", True, [("int32_t energy;", "uint32_t energy;")]),
    ("retype and append", True, [
        ("int32_t energy;", "uint32_t energy;"),
        ("0: no limit */\n} selvage_budget;", "*/\nuint64_t more;\n} selvage_budget;")]),
    ("rename a field", True, [("int32_t energy;", "int32_t power;")]),
    ("swap fields", True, [("uint64_t metered_bytes_daily;", "uint64_t swapped;"),
                           ("uint64_t unmetered_bytes_daily;",
                            "uint64_t metered_bytes_daily;"),
                           ("uint64_t swapped;", "uint64_t unmetered_bytes_daily;")]),
    ("delete a field", True, [("double battery;", "")]),
    ("retype a parameter", True, [("int64_t id);", "int32_t id);")]),
    ("retype a callback", True, [("int32_t (*consent)", "int64_t (*consent)")]),
    ("retype a plug-in's entry", True, [("uint32_t abi_version, selvage_engine*",
                                         "uint64_t abi_version, selvage_engine*")]),
    ("another value", True, [("SELVAGE_INSTALLED = 3", "SELVAGE_INSTALLED = 33")]),
    ("delete a function", True, [("SELVAGE_API void selvage_free(void* result);", "")]),
    ("a struct without a size", True, [
        ("typedef struct selvage_names {", "typedef struct selvage_x {\nint64_t x;\n"
         "} selvage_x;\ntypedef struct selvage_names {")]),
]


def self_test(header, baseline):
    del baseline  # of this very header, whatever the committed one is
    with open(header) as file:
        text = file.read()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        base = os.path.join(folder, "baseline.c")
        renew(header, base)
        for name, breaks, changes in SELF_TESTS:
            changed = text
            for old, new in changes:
                if old not in changed:
                    sys.exit(f"self-test '{name}': there is no '{old}' in {header}")
                changed = changed.replace(old, new, 1)
            copy = os.path.join(folder, "changed.h")
            with open(copy, "w") as file:
                file.write(changed)
            broken, new = problems(copy, base)
            if bool(broken) != breaks or (not breaks and bool(new) != bool(changes)):
                failed += 1
                print(f"'{name}' was judged wrong: broken {broken}, new {new}")
    print(f"{len(SELF_TESTS)} changes judged, {failed} of them wrong")
    return 1 if failed else 0


def main(arguments):
    force = "--break" in arguments
    arguments = [a for a in arguments if a != "--break"]
    if len(arguments) != 3 or arguments[0] not in ("check", "renew", "self-test"):
        sys.exit(__doc__)
    verb, header, baseline = arguments
    if verb == "self-test":
        return self_test(header, baseline)
    broken, new = ([], []) if force else problems(header, baseline)
    if broken:
        print("the ABI breaks:\n  " + "\n  ".join(broken))
        print("hosts that are built already would break with it; before a release, "
              "or with a new SONAME: scripts/abi renew --break")
        return 1
    if verb == "check":
        if new:
            print("new, and not guarded yet (scripts/abi renew):\n  " + "\n  ".join(new))
            return 1
        print("as promised")
        return 0
    renew(header, baseline)
    print("renewed" + "".join("\n  " + line for line in new))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
