/* Text datasets from inside: a text in memory to a dataset, and one line to a row. */
#ifndef PF_TEXT_H
#define PF_TEXT_H

#include "data/pf_jsonl.h"
#include "data/pf_tokenizer.h"
#include "prefopt/text.h"

/* As prefopt_text_read, of n bytes of (uncompressed) lines; name stands for the file in error
 * texts. (text_read.c) */
int32_t pf_text_parse(prefopt_dataset **out, prefopt_context *context,
                      const prefopt_tokenizer *tokenizer, const char *name, const char *bytes,
                      int64_t n, const prefopt_text_options *options, prefopt_text_counts *counts);

#if PF_HAVE_JSON

enum {
    PF_TEXT_KEPT = 1, /* the line is a row of the dataset */
    PF_TEXT_TOO_LONG = 2,
    PF_TEXT_SAME = 4,
    PF_TEXT_NO_LONGER = 8,
    PF_TEXT_IMPLICIT = 16,
    PF_TEXT_MOVED = 32,
    PF_TEXT_MISMATCH = 64
};

/* What became of one line. */
typedef struct {
    int64_t line;
    int64_t prompt_cut, completion_cut; /* tokens */
    int64_t completions_cut;
    int64_t flags; /* PF_TEXT_... */
} pf_text_note;

/* A prompt or a completion: its text, and where its tokens are among the encoder's. */
typedef struct {
    const char *text;
    int64_t n_bytes, begin, end;
} pf_text_part;

typedef struct {
    const int32_t *tokens;
    int64_t n;
} pf_text_view;

/* A text that was taken out of the line at hand; n < 0: none. */
typedef struct {
    const char *text;
    int64_t n;
} pf_text_taken;
enum { PF_TEXT_TAKEN = 4 };

/* What reading lines holds: one for each piece of the file that is read at once. */
typedef struct {
    pf_jsonl_reader lines; /* the dataset so far, room for the row that goes into it */
    pf_encoder encoder;    /* the tokens of the row, uncut */
    const prefopt_text_options *options;
    bool cuts;            /* pf_text_cuts of the tokenizer */
    void *parts;          /* pf_text_part: the prompt, then the completions */
    void *views;          /* pf_text_view, a completion each */
    pf_bytes bytes;       /* scratch */
    pf_bytes texts, rest; /* what was taken out of the line, and the line without */
    pf_text_taken taken[PF_TEXT_TAKEN];
    int64_t part_capacity, view_capacity;
    void *notes; /* pf_text_note: one a line that is not blank */
    int64_t n_notes, note_capacity;
} pf_text_reader;

int32_t pf_text_begin(pf_text_reader *r, prefopt_context *context,
                      const prefopt_tokenizer *tokenizer, const char *name,
                      const prefopt_text_options *options);
void pf_text_end(pf_text_reader *r);

/* Reads one line (without its line end) into r->lines.data and adds its note. (text_line.c) */
int32_t pf_text_line(pf_text_reader *r, const char *bytes, int64_t n);

/* ---- the object of a line (text_take.c) */

/* As pf_jsonl_object, but texts of its own fields may have been taken out of it: there they are
 * empty, and pf_text_take gives them, as long as the line is at hand. */
int32_t pf_text_object(pf_text_reader *r, const char *bytes, int64_t n, json_t **out);
/* False: the field's text is in the object itself. */
bool pf_text_take(const pf_text_reader *r, const char *field, const char **text, int64_t *n);

/* ---- the boundary between prompt and completion (text_boundary.c) */

/* Whether the tokenizer cuts before the space of " x", x an ASCII letter, that stands after an
 * ASCII sign or letter, whatever is around: then the tokens of what is before and of what follows
 * do not depend on one another. */
bool pf_text_cuts(const prefopt_tokenizer *tokenizer);

/* *differs: ids(prompt + completion) are not ids(prompt) ids(completion). Both parts are encoded.
 * Leaves the encoder's tokens as they are. Errors: as pf_encode. */
int32_t pf_text_mismatch(pf_text_reader *r, const pf_text_part *prompt,
                         const pf_text_part *completion, bool *differs);

/* The prompt of two encoded texts: *length is the largest number of tokens with which both begin
 * and after which both texts can be tokenised apart; *moved: it is not the largest with which both
 * begin. Errors: as pf_encode. */
int32_t pf_text_find_prompt(pf_text_reader *r, const pf_text_part *chosen,
                            const pf_text_part *rejected, int64_t *length, bool *moved);

#endif

#endif
