#include "tune_ranks.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef PF_HAVE_MPI
#include <prefopt/mpi.h>

static prefopt_mpi *mpi;

/* Open MPI's, MPICH's (Hydra) and Slurm's launchers say the number of ranks. */
static int launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i]) != NULL)
            return 1;
    return 0;
}

void tune_ranks_begin(int *argc, char ***argv)
{
    int given;
    if (!launched())
        return;
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &given);
    if (prefopt_mpi_create(&mpi, MPI_COMM_WORLD) != PREFOPT_OK) {
        fprintf(stderr, "%s\n", prefopt_mpi_last_error());
        exit(1);
    }
    if (!tune_ranks_first() && freopen("/dev/null", "w", stdout) == NULL)
        exit(1);
}

int tune_ranks_end(int code)
{
    if (mpi != NULL && code == 0) {
        fflush(stdout);
        prefopt_mpi_destroy(mpi);
        MPI_Finalize();
    }
    return code;
}

const prefopt_collective *tune_ranks_collective(void) { return prefopt_mpi_collective(mpi); }

#else

void tune_ranks_begin(int *argc, char ***argv) { (void)argc, (void)argv; }
int tune_ranks_end(int code) { return code; }
const prefopt_collective *tune_ranks_collective(void) { return NULL; }

#endif

int tune_ranks_first(void)
{
    const prefopt_collective *c = tune_ranks_collective();
    return c == NULL || c->rank == 0;
}

int tune_ranks_same(int answer)
{
    const prefopt_collective *c = tune_ranks_collective();
    if (c != NULL && c->broadcast(c->payload, &answer, sizeof answer, 0) != PREFOPT_OK)
        exit(1);
    return answer;
}
