/* Files that appear whole or not at all. */
#ifndef PF_FILE_H
#define PF_FILE_H

#include "base/pf_base.h"

/* Writes beside `path`, under a name of its own, until pf_file_commit has everything on disk and
 * renames it to `path`. An existing file keeps its permissions, and a symbolic link stays one (its
 * target is replaced). Anything else that exists under the name, like a device or a directory, is
 * refused. One thread at a time. */
typedef struct pf_file pf_file;

/* Errors: IO (names the path, says why), MEMORY. */
int32_t pf_file_create(pf_file **out, prefopt_context *context, const char *path);

/* For a large file that nobody will read soon: what is put goes to disk as it comes, and but for
 * the last 64 MiB leaves the system's cache of files. Before the first byte. */
void pf_file_pass(pf_file *file);

/* Appends n bytes; buffered. A failure is remembered: what follows and the commit fail like it. */
int32_t pf_file_put(pf_file *file, const void *bytes, int64_t n);

/* Makes the file appear under its name. On failure the old file is whole and nothing is left
 * beside it. The handle is gone either way. */
int32_t pf_file_commit(pf_file *file);

/* Gives the writing up; nothing is left. NULL is fine. */
void pf_file_abandon(pf_file *file);

/* "reading", "writing" ...: fails with IO and the text of an errno. */
int32_t pf_fail_errno(int error, const char *doing, const char *path);

#endif
