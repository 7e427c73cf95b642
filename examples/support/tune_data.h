/* Text files into the rows that each command of tune takes. */
#ifndef EXAMPLE_TUNE_DATA_H
#define EXAMPLE_TUNE_DATA_H

#include "language.h"
#include "tune_options.h"

/* The rows of a file: COMPLETIONS for sft (of pairs the preferred, of rankings the first; whole
 * texts where asked), pairs or rankings for reward and dpo, pairs for eval, each distinct prompt
 * once for the others. What was cut or left out is said on `log`. The program ends with one line on
 * stderr where a row is of no use to the command. With held_out (NULL: nothing is), about
 * `eval_fraction` of the prompts go there, with all their rows. */
prefopt_dataset *tune_data_read(const tune_options *o, const language_model *model,
                                const char *path, FILE *log, prefopt_dataset **held_out);

/* Of more rows than n some at random, in that order; *data is replaced. */
void tune_data_some(prefopt_dataset **data, int64_t n, uint64_t seed);

/* Mean number of tokens of a completion; *prompt: of every prompt, or -1 where they differ. */
double tune_data_length(const prefopt_dataset *data, int64_t *prompt);

#endif
