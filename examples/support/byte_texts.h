/* Text pairs as bytes: a dataset whose tokens are the bytes of the texts, which needs no tokenizer
 * of anybody's. Reading is prefopt_text_read, so that gzip, long lines and bad lines are its
 * affair. */
#ifndef EXAMPLE_BYTE_TEXTS_H
#define EXAMPLE_BYTE_TEXTS_H

#include <prefopt/prefopt.h>

/* The program ends with one line on stderr where the file cannot be read. */
prefopt_dataset *byte_texts_read(prefopt_context *context, const char *path,
                                 prefopt_text_counts *counts);

/* n tokens as text, zero-ended; free it. */
char *byte_text(const int32_t *tokens, int64_t n);

#endif
