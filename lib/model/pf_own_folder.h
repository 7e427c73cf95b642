/* The folder that a save builds in, before it appears under its name. */
#ifndef PF_OWN_FOLDER_H
#define PF_OWN_FOLDER_H

#include "model/pf_checkpoint.h"

/* "PARENT/PREFIX.ID.prefopt-save". A save holds a lock (flock) on it: one that nobody holds was
 * left by a process that ended. */
typedef struct {
    prefopt_context *context; /* borrowed */
    char id[PF_SAVE_ID];
    char *path;     /* NULL: there is none */
    int descriptor; /* where path is not NULL */
} pf_own_folder;

/* Longest prefix that is used whole; a longer one is cut. */
enum { PF_PREFIX_SHOWN = 200 };

/* A folder that nobody has, locked. doing and shown are for the error text: "creating a folder in
 * it", and in what. IO, MEMORY; on failure there is none. */
int32_t pf_own_folder_make(pf_own_folder *own, prefopt_context *context, const char *parent,
                           const char *prefix, const char *doing, const char *shown);
/* Removes it with all that is in it. None is fine. */
void pf_own_folder_remove(pf_own_folder *own);
/* Forgets it, and leaves it where (or under what name) it is. */
void pf_own_folder_leave(pf_own_folder *own);

/* Removes from the open folder what saves with this prefix have left that were cut off. pending:
 * the ID of one whose config.json first takes its place in the folder (see checkpoint_write.c), or
 * NULL. */
void pf_own_folder_clean(int folder, const char *prefix, const char *pending);

/* Removes the folder `name` of the open folder: first renamed to a name that a save has left, so
 * that nobody sees it with a part of its files, and whoever ends in between leaves what the next
 * clean removes. Takes no room on a full disk. False: it stays. */
bool pf_own_folder_discard(int folder, const char *prefix, const char *name);

/* Has the names in a folder on disk. IO. */
int32_t pf_flush_folder(const char *path);

#endif
