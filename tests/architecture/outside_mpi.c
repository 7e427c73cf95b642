/* A program from outside that uses prefopt-mpi: the ranks of the job as a training option. */
#include <stdio.h>

#include <prefopt/mpi.h>
#include <prefopt/prefopt.h>

int main(int argc, char **argv)
{
    prefopt_train_options options;
    prefopt_mpi *mpi;
    double ranks = 1;
    MPI_Init(&argc, &argv);
    if (prefopt_mpi_create(&mpi, MPI_COMM_WORLD) != PREFOPT_OK ||
        prefopt_train_options_init(&options, sizeof options) != PREFOPT_OK) {
        fprintf(stderr, "%s %s\n", prefopt_mpi_last_error(), prefopt_last_error());
        return 1;
    }
    options.collective = prefopt_mpi_collective(mpi);
    const prefopt_collective *c = options.collective;
    int32_t status = c->sum_f64(c->payload, &ranks, 1);
    int fine = status == PREFOPT_OK && ranks == (double)c->size;
    prefopt_mpi_destroy(mpi);
    MPI_Finalize();
    return fine ? 0 : 1;
}
