/* Lecture 22.5.2: where checking an answer is simpler than making one, a reward model and online
 * training get further than offline DPO on the same pairs.
 *   --world exact   tabular policies in a world that can be enumerated (the default)
 *   --world walk    transformers: planning a walk on a hidden graph against seeing where it ends
 *   --world sudoku  transformers: filling in a grid against checking one
 * docs/gap.md has what came out. */
#include "support/arguments.h"
#include "support/cli.h"
#include "support/studies.h"

static const char usage[] =
    "online_vs_offline [--world exact|walk|sudoku] [OPTIONS] [PICTURE.svg]\n"
    "\n"
    "Options of --world walk and --world sudoku. Without any: one seed, the prototype's arms.\n"
    "  --control none|one-step|hidden   walk: a world in which the gap should close\n"
    "  --legality mask|learnt  whether the policy is told which edges there are; default mask\n"
    "  --seeds N, --seed S     N seeds from S on; default 1 from 301\n"
    "  --threads N             jobs at a time, each on one thread; default 2\n"
    "  --arms NAME,NAME...|all which arms\n"
    "  --rate R, --beta B, --steps N    of every arm; default 5e-4, 0.1, 600\n"
    "  --pairs N               offline pairs; default 4000\n"
    "  --sft N                 steps of the supervised start\n"
    "  --curve                 also 250 to 8000 pairs\n"
    "  --grid                  the tuning grid (rate, beta, steps) instead of the study\n"
    "  --tuned FILE            also each arm at its best setting in FILE, the results of a grid\n"
    "  --results FILE          a line a finished job; the same command again goes on from there\n"
    "  --plan                  only say what there is to do and how long it takes\n"
    "  --brief                 everything at a fraction of its size, to see it run\n";

/* Bits of a list of arms. */
static uint64_t arms_of(const char *list)
{
    uint64_t arms = 0;
    if (strcmp(list, "all") == 0)
        return (1u << N_GAP_ARMS) - 1;
    for (const char *end; *list != '\0'; list = end + (*end == ',')) {
        int arm = 0, n = (int)strcspn(list, ",");
        end = list + n;
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
    }
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
    s->setting.steps = 6;
    for (int i = 0; i < 3; i++)
        s->grid_steps[i] = 2 * (i + 1);
}

int main(int argc, char **argv)
{
    gap_study s = {.arms = 1u << ARM_OFFLINE | 1u << ARM_ONE_TOP | 1u << ARM_ONE_RANDOM |
                           1u << ARM_FRESH_RANDOM,
                   .grid_steps = {300, 600, 1200}};
    double world = 0, control = 0, learnt = 0, seeds = 1, seed = 301, threads = 2, rate = 5e-4,
           beta = 0.1, steps = 600, pairs = 0, sft = 0, curve = 0, grid = 0, plan = 0, brief = 0;
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
    if (world == 0)
        return exact_study(s.picture != NULL ? s.picture : "online_vs_offline.svg");
    s.kind = world == 2 ? WORLD_SUDOKU : (gap_kind)control;
    gap_sizes_init(&s.sizes, s.kind);
    s.setting = (gap_setting){rate, beta, (int64_t)steps};
    s.n_seeds = (int)seeds;
    s.first_seed = (int)seed;
    s.threads = (int)threads;
    s.curve = curve != 0;
    s.grid = grid != 0;
    s.plan = plan != 0;
    if (brief != 0)
        make_brief(&s);
    s.sizes.mask = learnt == 0 && world == 1;
    if (arms != NULL)
        s.arms = arms_of(arms);
    if (pairs > 0)
        s.sizes.n_pairs = (int64_t)pairs;
    if (sft > 0)
        s.sizes.sft_steps = (int64_t)sft;
    return gap_study_run(&s);
}
