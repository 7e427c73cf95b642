/* Reading a tokenizer.json: what its parts share. */
#ifndef PF_TOKENIZER_FILE_H
#define PF_TOKENIZER_FILE_H

#include <jansson.h>

#include "data/pf_tokenizer.h"

/* How much of a string an error text shows. */
#define PF_SHOWN(text) (int)(strlen(text) < 60 ? strlen(text) : 60), (text)

/* A field that may be missing or null; false and null are `otherwise`'s business. Errors: FORMAT
 * where it is neither true nor false, naming "PART.FIELD". */
int32_t pf_file_bool(const json_t *object, const char *part, const char *field, bool otherwise,
                     bool *out);

/* Reads normalizer and pre_tokenizer into t, and refuses what changes tokens in them, in
 * post_processor, decoder and the fields of model. Errors: FORMAT, UNSUPPORTED, MEMORY.
 * (tokenizer_parts.c) */
int32_t pf_file_parts(prefopt_tokenizer *t, const json_t *root);

#endif
