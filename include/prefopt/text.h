/* prefopt/text.h: JSON Lines of text into a dataset, through a tokenizer.
 *
 *     prefopt_text_options options;
 *     prefopt_text_counts counts = {.struct_size = sizeof counts};
 *     prefopt_text_options_init(&options, sizeof options);
 *     prefopt_tokenizer_token(tokenizer, "<|endoftext|>", 13, &options.eos);
 *     options.max_prompt = 512;
 *     prefopt_text_read(&data, context, tokenizer, "pairs.jsonl.gz", &options, &counts);
 *
 * One JSON object a line, UTF-8, compressed with gzip or not; blank lines are skipped:
 *
 *     {"prompt":"2 + 2 =","chosen":" 4","rejected":" 5"}    a pair
 *     {"chosen":"2 + 2 = 4","rejected":"2 + 2 = 5"}         a pair, the prompt to be found
 *     {"prompt":"2 + 2 =","completion":" 4"}                or "completions":[" 4"," four"]
 *     {"prompt":"2 + 2 =","ranking":[" 4"," four"," 5"]}    best first
 *     {"prompt":"2 + 2 ="}
 *
 * Optional everywhere: "weight" and "scores"; on pairs "label" and "margin": all as in
 * prefopt_dataset_read_jsonl (data.h). Log-probabilities are of tokens, not of texts, and refused.
 * Other fields are kept (prefopt_row.extra). Refused as well: a line without any text, fields twice
 * in one object, arrays of tokens, and lists of chat messages, which have to be made text first.
 * Special tokens in a text are found as prefopt_tokenizer_encode finds them.
 *
 * From text to tokens. A prompt and its completions are tokenised apart, since a model that is
 * given the prompt sees it so: the tokens are ids(prompt) followed by ids(completion). Where
 * ids(prompt + completion) would differ (a prompt that ends in a space is the usual case), the row
 * is kept and counted as a boundary mismatch.
 *
 * A pair without "prompt" has it found: the longest beginning that ids(chosen) and ids(rejected)
 * share and after which tokenising apart changes nothing, for both. Where tokenising apart would
 * change ids after the longest one, the prompt is shorter and the row counted as moved.
 *
 * Then, in this order:
 *   1. eos is appended to each completion that does not end with it already.
 *   2. A prompt longer than max_prompt keeps its end (or its start: prompt_keep).
 *   3. A completion keeps its first max_completion tokens, and no more than max_tokens leaves
 * beside the prompt. One that is cut has no eos: it did not end there.
 *   4. A pair or ranking with two completions of the same tokens says nothing: it is left out.
 */
#ifndef PREFOPT_TEXT_H
#define PREFOPT_TEXT_H

#include "base.h"
#include "data.h"
#include "tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What happens to a row with a prompt or completion over a limit. */
enum prefopt_text_long {
    PREFOPT_LONG_CUT = 0,  /* it is cut; left out if no token of a completion has room */
    PREFOPT_LONG_SKIP = 1, /* it is left out */
    PREFOPT_LONG_FAIL = 2  /* the reading fails with FORMAT, naming the line */
};

enum prefopt_text_keep { PREFOPT_KEEP_END = 0, PREFOPT_KEEP_START = 1 };

typedef struct prefopt_text_options {
    uint32_t struct_size;
    int32_t eos;            /* token; -1 (default): none */
    int64_t max_prompt;     /* tokens; 0 (default): no limit */
    int64_t max_completion; /* tokens, eos among them; 0 (default): no limit */
    int64_t max_tokens;  /* tokens of a prompt and a completion together; 0 (default): no limit */
    int64_t max_rows;    /* reading stops after that many rows were kept; 0 (default): no limit */
    int32_t too_long;    /* prefopt_text_long; default CUT; with a limit alone */
    int32_t prompt_keep; /* prefopt_text_keep; default END; with max_prompt and CUT alone */
} prefopt_text_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_text_options_init(prefopt_text_options *options, uint32_t struct_size);

/* What reading did. Lines are numbered from 1; 0: there was none. */
typedef struct prefopt_text_counts {
    uint32_t struct_size, reserved;
    int64_t lines; /* that were not blank, up to the row with which reading stopped */
    int64_t rows;  /* kept */
    /* Left out: */
    int64_t too_long;         /* by the limits */
    int64_t same;             /* two completions are the same as written */
    int64_t no_longer_differ; /* two completions are the same now that they are cut */
    /* Of the rows kept: */
    int64_t implicit_prompts;    /* the prompt was found */
    int64_t moved;               /* found before the longest common beginning */
    int64_t boundary_mismatches; /* ids(prompt + completion) would differ, for one completion at
                                    least */
    int64_t prompts_cut, completions_cut;             /* how many were */
    int64_t prompt_tokens_cut, completion_tokens_cut; /* what went, eos among it */
    /* The first line of each: */
    int64_t first_too_long, first_same, first_no_longer_differ, first_moved,
        first_boundary_mismatch;
} prefopt_text_counts;

/* Reads a file of text into a new dataset. Lines are tokenised on the context's threads, with the
 * same dataset for any number of them. options NULL: defaults. counts may be NULL; its struct_size
 * must be set. On a bad line nothing is made, and the text says file, line, field, what was found
 * and what was expected. Rows left out and boundary mismatches are logged as warnings, one line
 * each. The caller owns *out.
 * Errors: ARGUMENT (NULL, an option, eos that the tokenizer lacks), IO, FORMAT (also gzip data that
 * is damaged or cut off, and text for which the vocabulary has no token), MEMORY, VERSION,
 * UNSUPPORTED (built without JSON; gzip, built without that; a Split pattern gave up on a text).
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_text_read(prefopt_dataset **out, prefopt_context *context,
                                      const prefopt_tokenizer *tokenizer, const char *path,
                                      const prefopt_text_options *options,
                                      prefopt_text_counts *counts);

#ifdef __cplusplus
}
#endif
#endif
