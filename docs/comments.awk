# Doxygen's view of the public headers (docs/Doxyfile): their plain comments become documentation,
# and lines indented by five or more in them verbatim blocks.

# An abbreviation's dot does not end the first sentence, which doxygen shows in its overviews.
function prose(line) {
    gsub(/eq\. /, "eq.\302\240", line)
    gsub(/ \.\. /, " ..\302\240", line)
    return line
}

function close_block() {
    if (block)
        print "@endverbatim"
    block = 0
}

# One comment behind two or three names is about each of them.
function each_name(declaration, comment,    names, n, i, type) {
    n = split(declaration, names, ", ")
    if (comment !~ /\*\/$/ || n < 2 || declaration !~ /^ *[a-z].*;$/)
        return declaration " " comment
    sub(/;$/, "", names[n])
    type = names[1]
    sub(/[*a-z0-9_]+$/, "", type)
    declaration = names[1] "; " comment
    for (i = 2; i <= n; i++)
        declaration = declaration " " type names[i] "; " comment
    return declaration
}

FNR == 1 {
    header = FILENAME
    sub(/.*\//, "prefopt/", header)
    sub(/^\/\* prefopt\/[a-z_]*\.h: /, "/** @file " header " @brief ")
    print prose($0)
    inside = $0 !~ /\*\//
    before = "text"
    next
}

inside && /^ \*     / && !/\*\// && before != "list" {
    if (!block)
        print (before == "blank" ? "" : " *\n") " * @verbatim"
    block = 1
    sub(/^ \*     /, "")
    print
    next
}

inside {
    close_block()
    before = $0 ~ /^ \*$/ ? "blank" : $0 ~ /^ \* [^ ]/ ? "text" : "list"
    if ($0 ~ /\*\//)
        inside = 0
    print prose($0)
    next
}

# Headings: of one line, nothing; longer ones are about the file.
/^ *\/\* -----*.*\*\/ *$/ { print; next }
/^\/\* ----/ {
    sub(/^\/\* -* */, "")
    print "/** @file " header "\n * @par " prose($0) "\n *"
    inside = 1
    before = "text"
    next
}

# A comment of its own stands before what it is about, one after code behind it.
/^ *\/\* / {
    sub(/\/\* /, "/** ")
    inside = $0 !~ /\*\//
    before = "text"
    print prose($0)
    next
}
/^ *[^ \/#].*\/\* / {
    at = index($0, "/* ")
    code = substr($0, 1, at - 1)
    sub(/ *$/, "", code)
    print each_name(code, "/**< " prose(substr($0, at + 3)))
    next
}
{ print }
