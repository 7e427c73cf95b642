/* A world for the study of the generation-verification gap with language models: prompts in two
 * parts, demonstrations, and a true reward that nobody is told. What fills it: walk_world.c,
 * sudoku_world.c. */
#ifndef EXAMPLE_GAP_WORLD_H
#define EXAMPLE_GAP_WORLD_H

#include <prefopt/prefopt.h>

typedef enum {
    WORLD_WALK,     /* walk from a start to a goal over six edges of a hidden graph */
    WORLD_ONE_STEP, /* control a: one step on the complete graph */
    WORLD_HIDDEN,   /* control b: the reward compares with a hidden walk of each prompt's own */
    WORLD_SUDOKU    /* fill in a 4 x 4 grid */
} gap_kind;

/* Draws one after the other from a stream of a seed. */
typedef struct gap_random {
    uint64_t seed, stream, next;
} gap_random;
double gap_uniform(gap_random *r);
int gap_below(gap_random *r, int n); /* 0 .. n - 1 */

typedef struct gap_world gap_world;
struct gap_world {
    gap_kind kind;
    uint64_t seed;
    prefopt_context *context; /* one thread: worlds work side by side */
    int prompt_len, length;   /* tokens of every prompt and of every completion */
    int vocab;
    int degree;          /* legal tokens after each token, of walks; 0: legality is not a graph */
    const int32_t *next; /* [vocab, degree]: them */
    const uint8_t *allowed; /* [vocab, vocab]: 1 where a token may follow another; NULL as above */
    double scale;           /* true reward of a success, nats of a labeller's preference */
    prefopt_dataset *train, *held; /* distinct prompts, a row each */
    prefopt_reward *truth;
    void *state;
    void (*destroy)(gap_world *);
    /* A demonstration for a prompt. */
    void (*demonstrate)(const gap_world *, const int32_t *prompt, int32_t *completion,
                        gap_random *);
    /* Success of a completion, in [0, 1]; the true reward is scale times that. */
    double (*success)(const gap_world *, const int32_t *prompt, const int32_t *completion);
};

/* Streams of a world's seed, so that nothing is drawn twice. */
enum {
    STREAM_GRAPH = 1,
    STREAM_SPLIT,
    STREAM_DEMONSTRATIONS,
    STREAM_PAIRS,
    STREAM_VALIDATION,
    STREAM_HELD_OUT,
    STREAM_ROUNDS
};

void walk_world_create(gap_world *w, gap_kind kind, uint64_t seed);
/* Control b: a prompt's hidden walk; own 0: the walk by what all prompts share, which is all that
 * can be known of a held-out one. */
void walk_world_hidden(const gap_world *w, const int32_t *prompt, int own, int32_t *completion);
void sudoku_world_create(gap_world *w, uint64_t seed);
/* Share of the held-out prompts that a solution of the training part fills in too. */
double sudoku_world_known(const gap_world *w);
void gap_world_destroy(gap_world *w);

/* For the worlds: context, datasets and truth of a world whose other fields stand. */
void gap_world_prepare(gap_world *w);
void gap_world_add_prompt(gap_world *w, int held_out, const int32_t *prompt);

/* n prompts drawn at random from a part: rows of kind PROMPT. */
prefopt_dataset *gap_prompts(const gap_world *w, const prefopt_dataset *part, int64_t n,
                             uint64_t stream);
/* n demonstrations for prompts of the training part. */
prefopt_dataset *gap_demonstrations(const gap_world *w, int64_t n);
/* Share of a dataset's completions that are walks on the graph; 1 where legality is no graph. */
double gap_legal_share(const gap_world *w, const prefopt_dataset *samples);
int gap_is_legal(const gap_world *w, const int32_t *prompt, const int32_t *completion);

#endif
