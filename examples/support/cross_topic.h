/* A linear reward on features of texts, judged on topics it never saw. */
#ifndef EXAMPLE_CROSS_TOPIC_H
#define EXAMPLE_CROSS_TOPIC_H

#include <prefopt/prefopt.h>

/* Pairs of distinct texts (a prompt with its completion). Groups are what folds leave out: topics,
 * or topics dealt together. */
typedef struct {
    prefopt_context *context;
    int64_t n_pairs, n_topics, n_groups, n_texts;
    int64_t *topic, *group;     /* n_pairs */
    char **topic_names;         /* n_topics */
    int64_t *group_of_topic;    /* n_topics */
    prefopt_dataset *numbers;   /* n_texts rows, each with the token that is its number */
    prefopt_dataset *pairs;     /* n_pairs, of such tokens */
    int64_t *text_group;        /* n_texts */
    int64_t *chosen, *rejected; /* n_pairs: texts */
    double *length;             /* n_texts: bytes */
    int64_t n_features;
    double *features; /* [n_texts, n_features] */
} topic_pairs;

/* A pair's topic is the first line of its prompt that is not blank. Topics are groups of their own,
 * or dealt into `deal` groups where there are more than that. */
void topic_pairs_read(topic_pairs *p, prefopt_context *context, const char *path, int64_t deal,
                      uint64_t seed);
void topic_pairs_free(topic_pairs *p);

/* What held-out pairs got, as means over the folds in which their group was held out. */
typedef struct {
    double *right, *log_likelihood; /* n_pairs */
    int64_t n_folds;
    double *ridge; /* n_folds: chosen within the training topics */
} cross_topic;

/* Every choice of `hold_out` groups (1 or 2) is held out in turn; the ridge is chosen among a few
 * by the log-likelihood of each training group when the others train. n_features: the first so
 * many. */
void cross_topic_run(cross_topic *out, const topic_pairs *p, int64_t n_features, int hold_out);
void cross_topic_free(cross_topic *c);

/* Fitted to all pairs with this ridge: theta [n_features], in standard deviations of the features.
 */
void topic_pairs_fit(const topic_pairs *p, int64_t n_features, double ridge, double *theta);

#endif
