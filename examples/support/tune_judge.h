/* tune eval and tune compare. */
#ifndef EXAMPLE_TUNE_JUDGE_H
#define EXAMPLE_TUNE_JUDGE_H

#include "language.h"
#include "tune_options.h"

/* Each prints its table and, with --json, writes the numbers. */
void tune_judge_eval(const tune_options *o);
void tune_judge_compare(const tune_options *o);

/* The context that the options ask for; the caller's. */
prefopt_context *tune_judge_context(const tune_options *o);

/* Both folders have the same tokenizer.json, byte for byte: tokens of one are tokens of the other.
 * Else one line, exit 1. */
void tune_judge_same_tokenizer(const char *a, const char *b);

/* The reward model at `folder`, in the context of `model`: its tokenizer, vocabulary and (with the
 * prompts and completions of the options) positions have to fit. */
void tune_judge_reward(language_model *reward, const language_model *model, const tune_options *o,
                       const char *model_folder);

#endif
