/* tune under an MPI launcher: `mpirun -n 2 tune dpo ...` trains one model on all ranks. The first
 * rank reads, writes and says what one process would; the others read and train. Without MPI, or
 * without a launcher, there is one rank and nothing here does anything. */
#ifndef EXAMPLE_TUNE_RANKS_H
#define EXAMPLE_TUNE_RANKS_H

#include <prefopt/prefopt.h>

/* The first thing in main. The others' standard output goes nowhere. */
void tune_ranks_begin(int *argc, char ***argv);
/* The last: the exit code of main. A rank that ends with another code than 0 ends the job. */
int tune_ranks_end(int code);

int tune_ranks_first(void);
/* For prefopt_train_options.collective; NULL: one rank. */
const prefopt_collective *tune_ranks_collective(void);
/* The first rank's answer on all. */
int tune_ranks_same(int answer);

#endif
