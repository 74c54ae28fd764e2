// Energy and forces of the molecule in an .xyz file, by an exported model. Needs libtorch alone.
//
//     jmp-md export --model jmp-xs-rmd17-ethanol --output model.pt
//     jmp_energy model.pt ethanol.xyz

#include <torch/script.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Molecule {
    torch::Tensor positions;  // (n, 3) float64, Å
    torch::Tensor numbers;    // (n,) int64
};

int64_t atomic_number(const std::string& symbol) {
    static const std::vector<std::string> symbols = {
        "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg",
        "Al", "Si", "P",  "S",  "Cl", "Ar", "K",  "Ca", "Sc", "Ti", "V",  "Cr",
        "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr"};
    for (std::size_t i = 0; i < symbols.size(); ++i)
        if (symbols[i] == symbol) return static_cast<int64_t>(i) + 1;
    throw std::runtime_error("unknown element '" + symbol + "'");
}

Molecule read_xyz(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    int64_t n = 0;
    if (!std::getline(file, line) || !(std::istringstream(line) >> n))
        throw std::runtime_error(path + ": the first line must be the number of atoms");
    std::getline(file, line);  // comment
    std::vector<double> positions;
    std::vector<int64_t> numbers;
    for (int64_t i = 0; i < n; ++i) {
        std::string symbol;
        double x = 0, y = 0, z = 0;
        if (!std::getline(file, line) || !(std::istringstream(line) >> symbol >> x >> y >> z))
            throw std::runtime_error(path + ": atom " + std::to_string(i + 1) + " is missing");
        numbers.push_back(atomic_number(symbol));
        positions.insert(positions.end(), {x, y, z});
    }
    return {torch::tensor(positions, torch::kFloat64).view({n, 3}),
            torch::tensor(numbers, torch::kInt64)};
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: jmp_energy MODEL.pt MOLECULE.xyz\n";
        return EXIT_FAILURE;
    }
    try {
        const Molecule molecule = read_xyz(argv[2]);
        torch::jit::Module model = torch::jit::load(argv[1]);
        // Spares seconds of optimisation in the first calls, which gains nothing.
        torch::jit::setGraphExecutorOptimize(false);
        const auto outputs = model
                                 .forward({
                                     molecule.positions,
                                     molecule.numbers,
                                     torch::zeros({1, 3, 3}, torch::kFloat64),  // cells, rows, Å
                                     torch::zeros({1, 3}, torch::kBool),        // periodic?
                                     torch::zeros_like(molecule.numbers),  // structure of each atom
                                 })
                                 .toTuple();
        const double energy = outputs->elements()[0].toTensor().item<double>();
        const torch::Tensor forces = outputs->elements()[1].toTensor().to(torch::kFloat64);
        std::printf("energy %.9f eV\nforces, eV/Å\n", energy);
        for (int64_t i = 0; i < forces.size(0); ++i)
            std::printf("%14.8f %14.8f %14.8f\n", forces[i][0].item<double>(),
                        forces[i][1].item<double>(), forces[i][2].item<double>());
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
