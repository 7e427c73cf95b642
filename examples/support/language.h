/* What the language-model examples share: a folder with model and tokenizer, text pairs, numbers of
 * many sequences with progress. */
#ifndef EXAMPLE_LANGUAGE_H
#define EXAMPLE_LANGUAGE_H

#include <stdio.h>

#include <prefopt/prefopt.h>

/* A folder with config.json, model.safetensors (or shards) and tokenizer.json. */
typedef struct {
    prefopt_context *context;
    prefopt_tokenizer *tokenizer;
    prefopt_policy *policy;   /* NULL: the folder holds a reward model */
    prefopt_reward *reward;   /* NULL: it holds a policy */
    int32_t eos;              /* ends a completion; -1: none */
    int64_t vocab, positions; /* of the model; positions 0: not known (a reward model) */
} language_model;

/* The program ends with one line on stderr where the folder is not what it should be. A reward
 * model is taken only where `reward_too`. */
void language_open(language_model *model, const char *folder, int reward_too);

/* The same in a context of the caller's, which it may destroy. */
void language_open_in(language_model *model, prefopt_context *context, const char *folder,
                      int reward_too);
void language_close(language_model *model);

/* "folder/name"; it lives as long as the program. */
char *language_path(const char *folder, const char *name);

/* The token that ends texts, by the names in use; -1: the tokenizer has none of them. */
int32_t language_end(const prefopt_tokenizer *tokenizer);

/* Copies a file; the copy appears whole. */
void language_copy(const char *from, const char *to);

/* Rows of text of any kind from a file; none left is an error. What was cut or left out is said in
 * one or more lines on `log`. begin: before rows without a prompt stands the token that ends a
 * text, as it does for sft and for samples: a language model gives its first token no probability.
 */
prefopt_dataset *language_rows(const language_model *model, const char *path, int64_t max_prompt,
                               int64_t max_completion, int64_t max_rows, FILE *log, int begin);

/* The same of pairs alone, with `begin`. */
prefopt_dataset *language_pairs(const language_model *model, const char *path, int64_t max_prompt,
                                int64_t max_completion, int64_t max_rows, FILE *log);

/* Log-probability (of a reward model: score) of each sequence of a dataset, with a progress line;
 * free it. */
double *language_values(const language_model *model, const prefopt_dataset *data);

/* Seconds since some fixed moment. */
double language_seconds(void);

#endif
