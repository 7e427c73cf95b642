/* Measures of the gap study: exact ones, over every legal walk of a prompt, and sampled ones. */
#ifndef EXAMPLE_GAP_MEASURE_H
#define EXAMPLE_GAP_MEASURE_H

#include "gap_record.h"
#include "gap_world.h"

/* Every legal walk of some prompts as a tree: level d holds the beginnings of d tokens, the
 * children of its entry i are entries i * degree .. of the next level. */
typedef struct {
    const gap_world *world;
    int64_t n_prompts, n_walks, n_nodes; /* nodes: beginnings that go on, of all levels */
    prefopt_sequences *level;            /* world->length + 1; the last: the walks */
    double *success;                     /* n_walks */
    double *reference;                   /* [n_nodes, vocab]: log-probabilities of the next token */
} gap_tree;

/* prompts: their first n_prompts rows at most. */
void gap_tree_create(gap_tree *t, const gap_world *w, const prefopt_dataset *prompts,
                     int64_t n_prompts);
void gap_tree_destroy(gap_tree *t);
/* The policy to which KLs are taken. */
void gap_tree_set_reference(gap_tree *t, prefopt_policy *reference);

typedef struct {
    double success; /* mean over prompts of E[success] */
    double legal;   /* probability that a walk is legal */
    double kl;      /* sum over positions of E[KL(policy || reference) of the next token], of legal
                       beginnings: the KL of walks, token by token; nats */
} gap_exact;

/* walk_logp: NULL, or n_walks. */
gap_exact gap_tree_evaluate(const gap_tree *t, prefopt_policy *policy, double *walk_logp);

/* Mean success of the best of n draws of the reference by a judge's scores (n_walks), exactly. */
double gap_tree_best_of(const gap_tree *t, int64_t n, const double *walk_logp, const double *score);
void gap_tree_scores(const gap_tree *t, prefopt_reward *judge, double *score);

/* Share of the policy's mass that lies on walks which the data (PAIR rows) do not hold under the
 * same prompt, and of that on successes. */
void gap_tree_uncovered(const gap_tree *t, const prefopt_dataset *data, const double *walk_logp,
                        double *uncovered, double *uncovered_success);

/* The likeliest token each time: NAME.greedy (mean success) and NAME.greedy_whole (share of
 * successes of 1). */
void gap_greedy(gap_record *out, const char *name, const gap_world *w, prefopt_policy *policy,
                const prefopt_dataset *prompts);

/* Sampled, n completions a prompt: NAME.sampled (mean success), NAME.whole (share of successes of
 * 1), NAME.sampled_legal, and beside a reference NAME.k1, NAME.k2, NAME.k3 of the KL; each with the
 * suffix. */
void gap_sampled(gap_record *out, const char *name, const char *suffix, const gap_world *w,
                 prefopt_policy *policy, const prefopt_reference *reference,
                 const prefopt_dataset *prompts, int64_t n);

#endif
