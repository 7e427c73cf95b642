/* Folders as a whole: removing one, and giving another the same content. */
#ifndef PF_FOLDER_H
#define PF_FOLDER_H

#include "base/pf_base.h"

typedef bool pf_name_test(const char *name);

/* Removes the folder `name` of `parent` with all that is in it, as far as that is allowed. Links
 * are not followed. */
void pf_folder_remove(int parent, const char *name);

/* Gives the folder `to` what `from` has but `skip` refuses: files by hard links (copies where those
 * cannot be), links as links, folders with their content. IO names the entry. */
int32_t pf_folder_mirror(int from, int to, pf_name_test *skip);

/* Two folders (by path) change places at once. False where the file system or the system lacks it.
 */
bool pf_folder_exchange(const char *a, const char *b);

/* Moves to the folder `to` what `from` has, `to` has not, and `skip` does not refuse. */
void pf_folder_rescue(int from, int to, pf_name_test *skip);

/* Calls with each name in the folder but "." and "..". False: the folder could not be listed. */
bool pf_folder_each(int folder, void (*call)(void *payload, int folder, const char *name),
                    void *payload);

#endif
