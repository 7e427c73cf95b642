/* A checkpoint's folder from inside: its configuration, and its files of tensors. */
#ifndef PF_CHECKPOINT_H
#define PF_CHECKPOINT_H

#include "model/pf_safetensors.h"

#define PF_CONFIG_NAME "config.json"
#define PF_WEIGHTS_NAME "model.safetensors"
#define PF_INDEX_NAME "model.safetensors.index.json"

/* ---- config.json (config_json.c) */

/* n bytes of a config.json; path stands for it in error texts. FORMAT (names file and field),
 * MEMORY, UNSUPPORTED. On failure the outputs are as before. */
int32_t pf_config_parse(const char *path, const char *bytes, int64_t n,
                        prefopt_transformer_config *config, int32_t *head);

/* The text of a config.json, in the old and the new spelling; dtype is that of the weights. *text
 * is to be freed. MEMORY, UNSUPPORTED. (config_write.c) */
int32_t pf_config_text(prefopt_context *context, const prefopt_transformer_config *config,
                       int32_t head, int32_t dtype, char **text, int64_t *n);

/* ---- files of tensors (checkpoint_files.c) */

typedef struct {
    const pf_file_tensor *tensor;
    const pf_safetensors *file;
} pf_entry;

typedef struct {
    prefopt_context *context;
    const char *folder;
    int descriptor; /* of the folder: what is read belongs together even when it is replaced */
    int64_t n_files;
    pf_safetensors *files;
    char **paths; /* n_files */
    int64_t n_entries;
    pf_entry *entries; /* of all files, by name */
} pf_checkpoint;

/* Opens model.safetensors, or the shards that the index names. folder must live as long. IO,
 * FORMAT, MEMORY, UNSUPPORTED. On failure nothing is open. */
int32_t pf_checkpoint_open(pf_checkpoint *out, prefopt_context *context, const char *folder);
void pf_checkpoint_close(pf_checkpoint *checkpoint);

const pf_entry *pf_checkpoint_find(const pf_checkpoint *checkpoint, const char *name); /* or NULL */

/* The folder's configuration. */
int32_t pf_checkpoint_read_config(const pf_checkpoint *checkpoint,
                                  prefopt_transformer_config *config, int32_t *head);

/* ---- small things (checkpoint_names.c) */

/* "A/B", to be freed. MEMORY. */
int32_t pf_join(prefopt_context *context, const char *a, const char *b, char **out);

/* A whole file of at most `most` bytes, to be freed. IO, FORMAT (too large), MEMORY. */
int32_t pf_read_small(prefopt_context *context, int folder, const char *name, const char *path,
                      int64_t most, char **bytes, int64_t *n);

/* Writes the file FOLDER/NAME, whole and on disk. IO, MEMORY. */
int32_t pf_write_small(prefopt_context *context, const char *folder, const char *name,
                       const char *bytes, int64_t n);

/* The folder that a save builds under: PREFIX.16 hexadecimal digits.prefopt-save. */
#define PF_SAVE_SUFFIX ".prefopt-save"
enum { PF_SAVE_ID = 17, PF_SAVE_NAME = 1 + 16 + sizeof PF_SAVE_SUFFIX };
bool pf_is_save_id(const char *id);                        /* 16 hexadecimal digits */
void pf_save_name(char out[PF_SAVE_NAME], const char *id); /* ".ID.prefopt-save" */
/* The name is prefix and then that; id may be NULL. */
bool pf_is_save_name(const char *name, const char *prefix, char id[PF_SAVE_ID]);
bool pf_is_shard_name(const char *name); /* model-00001-of-00002.safetensors */

/* More brackets than tensors have; each costs a JSON parser much memory. (safetensors.c) */
bool pf_too_nested(const char *text, int64_t n);

#endif
