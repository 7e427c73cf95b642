/* Numbers that describe how a text is written, not what it is about: what a linear reward model can
 * carry over to topics it never saw. */
#ifndef EXAMPLE_TEXT_FEATURES_H
#define EXAMPLE_TEXT_FEATURES_H

#include <stdint.h>

enum { TEXT_FEATURES = 36 };

/* What each number is. The first is the logarithm of the length in bytes. */
extern const char *const text_feature_names[TEXT_FEATURES];

/* Of n bytes of UTF-8; all are finite, also for an empty text. Words are runs of ASCII letters and
 * apostrophes. */
void text_features(const char *text, int64_t n, double out[TEXT_FEATURES]);

#endif
