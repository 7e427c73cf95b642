/* Lecture 22.5.2: where checking an answer is simpler than making one, a reward model and online
 * training get further than offline DPO on the same pairs.
 *   --world exact   tabular policies in a world that can be enumerated (the default)
 *   --world walk    transformers: planning a walk on a hidden graph against seeing where it ends
 *   --world sudoku  transformers: filling in a grid against checking one
 * docs/gap.md has what came out. */
#include <math.h>

#include "support/arguments.h"
#include "support/cli.h"
#include "support/studies.h"

static const char usage[] =
    "online_vs_offline [--world exact|walk|sudoku] [OPTIONS] [PICTURE.svg]\n"
    "\n"
    "From one start and the same preference pairs: offline DPO, or DPO on samples that\n"
    "a reward model has judged?\n"
    "  --world exact   tabular policies in a world that can be enumerated (the default)\n"
    "  --world walk    transformers plan walks on a hidden graph; minutes a seed\n"
    "  --world sudoku  transformers fill in 4 x 4 grids; minutes a seed\n"
    "The first takes no options. A first look at the others: `--world walk gap.svg` runs\n"
    "one seed with the arms offline, one_top, one_random and fresh_random and ends with\n"
    "tables and a picture; more seeds give intervals.\n"
    "\n"
    "  --seeds N, --seed S     N seeds from S on (1 from 301)\n"
    "  --threads N             jobs at a time, each on one thread (2)\n"
    "  --results FILE          a line a finished job; the same command again goes on there\n"
    "  --plan                  only say what there is to do and how long it takes\n"
    "  --brief                 everything at a fraction of its size, to see it run\n"
    "  --arms NAME,NAME...|all\n"
    "       offline, twice, by_reward, by_truth     on the pairs, on twice as many, on the\n"
    "                                               pairs as reward model or truth order them\n"
    "       one_top, one_random, one_2sd            on one round of samples, by pair rule\n"
    "       fresh_top, fresh_random, fresh_2sd      on fresh samples at every step\n"
    "       one_from_dpo, fresh_from_dpo            the same from where offline DPO ended\n"
    "       gradient, distil                        policy gradient; likelihood of the best of n\n"
    "  --rate R, --beta B, --steps N                of every arm (5e-4, 0.1, 600)\n"
    "  --pairs N               offline pairs (4000)\n"
    "  --sft N                 steps of the supervised start (600; sudoku: 1500)\n"
    "  --curve                 also 250 to 8000 pairs\n"
    "  --grid                  the tuning grid (rate, beta, steps) instead of the study\n"
    "  --tuned FILE            also each arm at its best setting in FILE, results of a grid\n"
    "  --control none|one-step|hidden   walk: a world in which the gap should close\n"
    "  --legality mask|learnt  walk: whether the policy is told which edges there are (mask)";

/* Bits of a list of arms. */
static uint64_t arms_of(const char *list)
{
    uint64_t arms = 0;
    if (strcmp(list, "all") == 0)
        return (1u << N_GAP_ARMS) - 1;
    do {
        int arm = 0, n = (int)strcspn(list, ",");
        const char *end = list + n;
        while (arm < N_GAP_ARMS &&
               !(strncmp(gap_arm_key[arm], list, (size_t)n) == 0 && gap_arm_key[arm][n] == '\0'))
            arm++;
        if (arm == N_GAP_ARMS) {
            fprintf(stderr, "--arms has \"%.*s\", expected all or some of", n, list);
            for (arm = 0; arm < N_GAP_ARMS; arm++)
                fprintf(stderr, " %s", gap_arm_key[arm]);
            fprintf(stderr, "\n");
            exit(2);
        }
        arms |= 1u << arm;
        list = end + (*end == ',');
    } while (*list != '\0');
    return arms;
}

/* Small enough for a test: every part runs, no number means much. */
static void make_brief(gap_study *s)
{
    s->sizes.n_pairs = 128;
    s->sizes.n_held_pairs = 128;
    s->sizes.n_prompts = 128;
    s->sizes.sft_steps = 20;
    s->sizes.reward_steps = 20;
    s->sizes.samples = 4;
    s->sizes.fresh_samples = 4;
    s->sizes.batch = 16;
    s->sizes.held_prompts = 2;
    s->sizes.held_samples = 2;
    for (int i = 0; i < 3; i++)
        s->grid_steps[i] = 2 * (i + 1);
}

/* An option that is given (its number no longer NaN) and is among `names` (but: is not) ends the
 * program: nothing is taken and ignored. */
static void refuse(const argument *options, const char *names, int but, const char *why)
{
    for (const argument *o = options; o->name != NULL; o++) {
        int given = o->text != NULL ? *o->text != NULL : !isnan(*o->value);
        if (given && (arguments_choice(names, o->name) >= 0) != but) {
            fprintf(stderr, "%s has no use with %s\n", o->name, why);
            exit(2);
        }
    }
}

static double given_or(double given, double otherwise) { return isnan(given) ? otherwise : given; }

int main(int argc, char **argv)
{
    gap_study s = {.arms = 1u << ARM_OFFLINE | 1u << ARM_ONE_TOP | 1u << ARM_ONE_RANDOM |
                           1u << ARM_FRESH_RANDOM,
                   .grid_steps = {300, 600, 1200}};
    double world = NAN, control = NAN, learnt = NAN, seeds = NAN, seed = NAN, threads = NAN,
           rate = NAN, beta = NAN, steps = NAN, pairs = NAN, sft = NAN, curve = NAN, grid = NAN,
           plan = NAN, brief = NAN;
    const char *arms = NULL;
    const argument options[] = {
        {.name = "--world", .value = &world, .choices = "exact walk sudoku"},
        {.name = "--control", .value = &control, .choices = "none one-step hidden"},
        {.name = "--legality", .value = &learnt, .choices = "mask learnt"},
        {.name = "--seeds", .value = &seeds, .low = 1, .high = 1000, .whole = 1},
        {.name = "--seed", .value = &seed, .low = 0, .high = 1e9, .whole = 1},
        {.name = "--threads", .value = &threads, .low = 1, .high = 64, .whole = 1},
        {.name = "--arms", .text = &arms},
        {.name = "--rate", .value = &rate, .low = 1e-9, .high = 10},
        {.name = "--beta", .value = &beta, .low = 1e-9, .high = 1e9},
        {.name = "--steps", .value = &steps, .low = 3, .high = 1e6, .whole = 1},
        {.name = "--pairs", .value = &pairs, .low = 64, .high = 1e6, .whole = 1},
        {.name = "--sft", .value = &sft, .low = 1, .high = 1e5, .whole = 1},
        {.name = "--curve", .value = &curve},
        {.name = "--grid", .value = &grid},
        {.name = "--tuned", .text = &s.tuned},
        {.name = "--results", .text = &s.results},
        {.name = "--plan", .value = &plan},
        {.name = "--brief", .value = &brief},
        {.name = NULL}};
    arguments_read(argc, argv, usage, options, &s.picture, 0, 1);
    if (given_or(world, 0) == 0) {
        refuse(options, "--world", 1, "--world exact");
        return exact_study(s.picture != NULL ? s.picture : "online_vs_offline.svg");
    }
    if (world == 2)
        refuse(options, "--control --legality", 0, "--world sudoku");
    s.kind = world == 2 ? WORLD_SUDOKU : (gap_kind)given_or(control, 0);
    s.grid = !isnan(grid);
    if (s.grid)
        refuse(options, "--rate --beta --steps --curve --tuned", 0, "--grid");
    if (s.grid && s.picture != NULL) {
        fprintf(stderr, "%s has no use with --grid, which draws no picture\n", s.picture);
        exit(2);
    }
    gap_sizes_init(&s.sizes, s.kind);
    if (!isnan(brief))
        make_brief(&s);
    s.setting = (gap_setting){given_or(rate, 5e-4), given_or(beta, 0.1),
                              (int64_t)given_or(steps, isnan(brief) ? 600 : 6)};
    s.n_seeds = (int)given_or(seeds, 1);
    s.first_seed = (int)given_or(seed, 301);
    s.threads = (int)given_or(threads, 2);
    s.curve = !isnan(curve);
    s.plan = !isnan(plan);
    s.sizes.mask = given_or(learnt, 0) == 0 && world == 1;
    s.sizes.n_pairs = (int64_t)given_or(pairs, (double)s.sizes.n_pairs);
    s.sizes.sft_steps = (int64_t)given_or(sft, (double)s.sizes.sft_steps);
    if (arms != NULL)
        s.arms = arms_of(arms);
    uint64_t tuned =
        s.curve ? 1u << ARM_OFFLINE | 1u << ARM_ONE_TOP | 1u << ARM_ONE_RANDOM : 1u << ARM_OFFLINE;
    if (s.tuned != NULL && (s.arms & tuned) != tuned) {
        fprintf(stderr,
                "--tuned takes the settings of offline%s from the grid: --arms has to name "
                "them\n",
                s.curve ? ", one_top and one_random" : "");
        exit(2);
    }
    return gap_study_run(&s);
}
