/* Control b of the gap study: what its true reward pays for, what its demonstrations show, and
 * which part of the hidden walks one can learn from other prompts. */
#include "examples/support/gap_world.h"
#include "pf_test.h"

enum { SEEDS = 10, LENGTH = 6, NODES = 16 };

static void read_prompt(const prefopt_dataset *part, int64_t i, int32_t prompt[2])
{
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(part, i, &row));
    ck_assert_int_eq(row.prompt_len, 2);
    memcpy(prompt, row.prompt, 2 * sizeof *prompt);
}

static double true_reward(const gap_world *w, const int32_t *prompt, const int32_t *walk)
{
    int32_t tokens[2 + LENGTH];
    int64_t offsets[2] = {0, 2 + LENGTH}, prompt_len = 2;
    double score;
    memcpy(tokens, prompt, 2 * sizeof *tokens);
    memcpy(tokens + 2, walk, LENGTH * sizeof *tokens);
    prefopt_sequences s = {.struct_size = sizeof s,
                           .n = 1,
                           .tokens = tokens,
                           .offsets = offsets,
                           .prompt_len = &prompt_len};
    OK(prefopt_reward_scores(w->truth, &s, &score));
    return score;
}

START_TEST(truth_pays_for_the_hidden_walk)
{
    gap_world w;
    walk_world_create(&w, WORLD_HIDDEN, 1);
    ck_assert_int_eq(w.length, LENGTH);
    for (int held = 0; held < 2; held++) {
        const prefopt_dataset *part = held ? w.held : w.train;
        ck_assert_int_eq(prefopt_dataset_size(part), held ? 64 : 192);
        for (int64_t i = 0; i < prefopt_dataset_size(part); i++) {
            int32_t prompt[2], walk[LENGTH];
            read_prompt(part, i, prompt);
            walk_world_hidden(&w, prompt, 1, walk);
            ck_assert(gap_is_legal(&w, prompt, walk));
            CLOSE(true_reward(&w, prompt, walk), w.scale, 1e-12);
            /* Another last node on an edge: five of six agree. */
            const int32_t *next = w.next + walk[LENGTH - 2] * w.degree;
            walk[LENGTH - 1] = next[walk[LENGTH - 1] == next[0] ? 1 : 0];
            CLOSE(true_reward(&w, prompt, walk), w.scale * 5 / 6, 1e-12);
            /* Where no edge leads, nothing is earned. */
            walk[LENGTH - 1] = walk[LENGTH - 2];
            CLOSE(true_reward(&w, prompt, walk), 0, 0);
        }
    }
    gap_world_destroy(&w);
}
END_TEST

/* Three in ten are hidden walks; of the others one in 3^6 is by chance. */
START_TEST(demonstrations_follow_it_now_and_then)
{
    gap_world w;
    enum { N = 4000 };
    walk_world_create(&w, WORLD_HIDDEN, 2);
    prefopt_dataset *data = gap_demonstrations(&w, N);
    double hidden = 0, others = 0;
    for (int64_t i = 0; i < N; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        OK(prefopt_dataset_row(data, i, &row));
        ck_assert(gap_is_legal(&w, row.prompt, row.completions));
        double success = w.success(&w, row.prompt, row.completions);
        hidden += success == 1;
        others += success < 1 ? success : 0;
    }
    double p = 0.3 + 0.7 / 729;
    ck_assert_double_lt(fabs(hidden / N - p), 4 * sqrt(p * (1 - p) / N));
    /* Their nodes are right by chance alone: the first one in a third of them. */
    ck_assert_double_lt(others / (N - hidden), 0.2);
    prefopt_dataset_destroy(data);
    gap_world_destroy(&w);
}
END_TEST

/* Over seeds: one prompt in five starts with an edge of its own; all others with that of the shared
 * table. What training prompts do most often at a node is the shared table, so that it can be
 * learnt from them, and it earns on held-out prompts what six steps without an own edge do, or a
 * little more (walks meet again), but far from everything. */
START_TEST(the_shared_part_can_be_learnt)
{
    double own = 0, prompts = 0, earned = 0, held = 0, on_way = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        gap_world w;
        int votes[NODES][NODES] = {{0}};
        walk_world_create(&w, WORLD_HIDDEN, seed);
        for (int64_t i = 0; i < prefopt_dataset_size(w.train); i++) {
            int32_t prompt[2], walk[LENGTH], shared[LENGTH];
            read_prompt(w.train, i, prompt);
            walk_world_hidden(&w, prompt, 1, walk);
            walk_world_hidden(&w, prompt, 0, shared);
            own += walk[0] != shared[0];
            prompts++;
            for (int k = 0; k < LENGTH; k++)
                votes[k == 0 ? prompt[1] : walk[k - 1]][walk[k]]++;
        }
        for (int64_t i = 0; i < prefopt_dataset_size(w.held); i++) {
            int32_t prompt[2], shared[LENGTH];
            read_prompt(w.held, i, prompt);
            walk_world_hidden(&w, prompt, 0, shared);
            earned += w.success(&w, prompt, shared);
            held++;
            int most = 0, *vote = votes[prompt[1]];
            for (int x = 0; x < NODES; x++)
                most = vote[x] > vote[most] ? x : most;
            ck_assert_int_eq(most, shared[0]);
        }
        gap_world_destroy(&w);
    }
    ck_assert_double_lt(fabs(own / prompts - 0.2), 4 * sqrt(0.2 * 0.8 / prompts));
    for (int k = 1; k <= LENGTH; k++)
        on_way += pow(0.8, k) / LENGTH;
    /* A success is a mean in [0, 1]: its deviation is below one half. */
    ck_assert_double_gt(earned / held, on_way - 4 * 0.5 / sqrt(held));
    ck_assert_double_lt(earned / held, on_way + 0.1);
}
END_TEST

TEST_MAIN("hidden walks", truth_pays_for_the_hidden_walk, demonstrations_follow_it_now_and_then,
          the_shared_part_can_be_learnt)
