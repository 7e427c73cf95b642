/* The lecture's own example of easy checking: fill in a 4 x 4 grid so that every row, column and
 * box holds 1 to 4. A token is a digit in a cell, 4 cell + digit - 1. A prompt is the digits that
 * are given, then the token 64; a completion is the others, cell by cell. Success is the share of
 * the twelve rows, columns and boxes that are right. Demonstrations are solutions in which each
 * digit is wrong now and then. Whole solutions are held out, not only prompts; but six digits do
 * not settle a grid, and a held-out prompt may have a training solution beside its own. */
#include "cli.h"
#include "gap_world.h"

enum {
    CELLS = 16,
    BLANKS = 10,
    GIVEN = CELLS - BLANKS,
    END = 4 * CELLS,
    GRIDS = 288,
    TRAIN_GRIDS = 230,
    PROMPTS = 1000,
    HELD_OUT = 200
};
static const double wrong_digit = 0.15;

typedef struct {
    int8_t grid[GRIDS][CELLS];
    int n;
} grids;

static int same_unit(int a, int b)
{
    return a / 4 == b / 4 || a % 4 == b % 4 || (a / 8 == b / 8 && a % 4 / 2 == b % 4 / 2);
}

/* All grids that go on from the first `at` cells. */
static void list_grids(grids *g, int8_t *cell, int at)
{
    if (at == CELLS) {
        memcpy(g->grid[g->n++], cell, CELLS);
        return;
    }
    for (int8_t digit = 1; digit <= 4; digit++) {
        int fits = 1;
        for (int before = 0; before < at; before++)
            fits &= cell[before] != digit || !same_unit(before, at);
        cell[at] = digit;
        if (fits)
            list_grids(g, cell, at + 1);
    }
}

/* The digits of a grid in the cells where there is none yet; of a cell named twice, the first. */
static void fill(int8_t *cell, const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        if (tokens[i] < END && cell[tokens[i] / 4] == 0)
            cell[tokens[i] / 4] = (int8_t)(1 + tokens[i] % 4);
}

static int agrees(const int8_t *grid, const int8_t *given)
{
    for (int i = 0; i < CELLS; i++)
        if (given[i] != 0 && given[i] != grid[i])
            return 0;
    return 1;
}

/* The training grids that solve a prompt; how many there are. */
static int known_solutions(const grids *g, const int32_t *prompt, int solution[GRIDS])
{
    int8_t given[CELLS] = {0};
    int n = 0;
    fill(given, prompt, GIVEN);
    for (int i = 0; i < TRAIN_GRIDS; i++)
        if (agrees(g->grid[i], given))
            solution[n++] = i;
    return n;
}

double sudoku_world_known(const gap_world *w)
{
    int64_t n = prefopt_dataset_size(w->held);
    int known = 0, solution[GRIDS];
    for (int64_t i = 0; i < n; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        CALL(prefopt_dataset_row(w->held, i, &row));
        known += known_solutions(w->state, row.prompt, solution) > 0;
    }
    return (double)known / (double)n;
}

/* A solution of the prompt among the training grids, with errors. */
static void demonstrate(const gap_world *w, const int32_t *prompt, int32_t *completion,
                        gap_random *random)
{
    const grids *g = w->state;
    int8_t given[CELLS] = {0};
    int solution[GRIDS], n = known_solutions(g, prompt, solution), at = 0;
    fill(given, prompt, GIVEN);
    const int8_t *grid = g->grid[solution[gap_below(random, n)]];
    for (int i = 0; i < CELLS; i++)
        if (given[i] == 0) {
            int wrong = gap_uniform(random) < wrong_digit;
            completion[at++] = 4 * i + (wrong ? gap_below(random, 4) : grid[i] - 1);
        }
}

static double units_right(const gap_world *w, const int32_t *prompt, const int32_t *completion)
{
    int8_t cell[CELLS] = {0};
    int seen[12] = {0}, right = 0;
    (void)w;
    fill(cell, prompt, GIVEN);
    fill(cell, completion, BLANKS);
    for (int i = 0; i < CELLS; i++) {
        int bit = cell[i] != 0 ? 1 << cell[i] : 0;
        seen[i / 4] |= bit;
        seen[4 + i % 4] |= bit;
        seen[8 + i / 8 * 2 + i % 4 / 2] |= bit;
    }
    for (int unit = 0; unit < 12; unit++)
        right += seen[unit] == 30;
    return right / 12.0;
}

static void sudoku_destroy(gap_world *w) { free(w->state); }

void sudoku_world_create(gap_world *w, uint64_t seed)
{
    grids *g = calloc(1, sizeof *g);
    gap_random random = {seed, STREAM_SPLIT, 0};
    int8_t cell[CELLS];
    if (g == NULL)
        exit(1);
    list_grids(g, cell, 0);
    for (int i = GRIDS - 1; i > 0; i--) {
        int j = gap_below(&random, i + 1);
        memcpy(cell, g->grid[i], CELLS);
        memcpy(g->grid[i], g->grid[j], CELLS);
        memcpy(g->grid[j], cell, CELLS);
    }
    *w = (gap_world){.kind = WORLD_SUDOKU,
                     .seed = seed,
                     .prompt_len = GIVEN + 1,
                     .length = BLANKS,
                     .vocab = END + 1,
                     .scale = 12,
                     .state = g,
                     .destroy = sudoku_destroy,
                     .demonstrate = demonstrate,
                     .success = units_right};
    gap_world_prepare(w);
    for (int p = 0; p < PROMPTS + HELD_OUT; p++) {
        int held = p >= PROMPTS;
        int from = held ? TRAIN_GRIDS + gap_below(&random, GRIDS - TRAIN_GRIDS)
                        : gap_below(&random, TRAIN_GRIDS);
        int32_t prompt[GIVEN + 1];
        int blank[CELLS] = {0}, at = 0;
        for (int blanks = 0; blanks < BLANKS;) {
            int i = gap_below(&random, CELLS);
            blanks += !blank[i];
            blank[i] = 1;
        }
        for (int i = 0; i < CELLS; i++)
            if (!blank[i])
                prompt[at++] = 4 * i + g->grid[from][i] - 1;
        prompt[GIVEN] = END;
        gap_world_add_prompt(w, held, prompt);
    }
}
