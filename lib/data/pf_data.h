/* Internal face of the data room: views of sequences, the map from a sequence to its index. */
#ifndef PF_DATA_H
#define PF_DATA_H

#include "base/pf_base.h"
#include "prefopt/data.h"

/* ---- views (sequences.c) */

/* Checks a caller's view: struct_size, n >= 0, arrays not NULL where n > 0 (tokens may be NULL when
 * all sequences are empty), offsets >= 0 and not decreasing, prompt_len in range, tokens >= 0.
 * `name` begins the error text: "in: ..." ARGUMENT or VERSION. */
int32_t pf_sequences_check(const prefopt_sequences *in, const char *name);

/* Sequence i of a checked view: its first token, how many it has. */
static inline const int32_t *pf_sequence_tokens(const prefopt_sequences *in, int64_t i)
{
    int64_t first = in->offsets[i];
    return first < in->offsets[i + 1] ? in->tokens + first : NULL;
}
static inline int64_t pf_sequence_len(const prefopt_sequences *in, int64_t i)
{
    return in->offsets[i + 1] - in->offsets[i];
}
/* Tokens of all sequences of a checked view. */
static inline int64_t pf_sequences_tokens(const prefopt_sequences *in)
{
    return in->n > 0 ? in->offsets[in->n] - in->offsets[0] : 0;
}

/* Sequences first .. first + n - 1 of a checked view, as a view. */
prefopt_sequences pf_sequences_part(const prefopt_sequences *in, int64_t first, int64_t n);

/* Hash of len tokens whose first prompt_len are the prompt; the same on every machine. */
uint64_t pf_sequence_hash(const int32_t *tokens, int64_t len, int64_t prompt_len);

/* ---- whose reference log-probabilities a row has (ref_key.c)
 *
 * A row's key is made of the reference's content hash and the row's sequences, so that it fits no
 * other reference and no row that was edited. Given the sequences it is one-to-one in the hash: the
 * key tells which reference it was. */

/* Hash of sequences first .. end - 1 of a checked view, in order: of a row, or of all. */
uint64_t pf_row_hash(const prefopt_sequences *in, int64_t first, int64_t end);
uint64_t pf_ref_key(uint64_t reference, uint64_t row_hash);
uint64_t pf_ref_key_reference(uint64_t key, uint64_t row_hash);

/* ---- the map from a sequence to its index (sequence_map.c)
 *
 * Holds a copy of the distinct sequences of a view, in order of first appearance. It never changes,
 * so it may be read from many threads and shared by handles (retain). */
typedef struct pf_sequence_map pf_sequence_map;

enum pf_map_of { PF_MAP_SEQUENCES, PF_MAP_PROMPTS };

/* of = PF_MAP_PROMPTS: the prompts of `in` alone, completions are ignored here and by find.
 * index: NULL, or in->n numbers: the place in the map of each sequence of `in`. `in` is checked
 * first. On failure *out and index are as before. */
int32_t pf_sequence_map_create(pf_sequence_map **out, prefopt_context *context,
                               const prefopt_sequences *in, enum pf_map_of of, int64_t *index);
pf_sequence_map *pf_sequence_map_retain(pf_sequence_map *map);
void pf_sequence_map_destroy(pf_sequence_map *map); /* gives up one reference; NULL is fine */

/* Index of sequence i of a checked view (of its prompt, PF_MAP_PROMPTS), or -1. */
int64_t pf_sequence_map_find(const pf_sequence_map *map, const prefopt_sequences *in, int64_t i);
/* The same of len tokens of which prompt_len are the prompt. */
int64_t pf_sequence_map_find_tokens(const pf_sequence_map *map, const int32_t *tokens, int64_t len,
                                    int64_t prompt_len);

int64_t pf_sequence_map_size(const pf_sequence_map *map);
/* The distinct sequences, as long as the map lives (PF_MAP_PROMPTS: with empty completions). */
const prefopt_sequences *pf_sequence_map_view(const pf_sequence_map *map);

#endif
