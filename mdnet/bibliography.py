"""The papers, books and programs that mdnet rests on, and their BibTeX entries.

One paragraph of the table is one of them; potentials have theirs in
`mdnet.bibliography_potentials`.  Which of them a run used is the business of
`mdnet.citations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from mdnet._version import __version__
from mdnet.bibliography_potentials import POTENTIALS

__all__ = ["MDNET", "Reference", "references"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A paper, book or program.

    Attributes
    ----------
    key : str
        Of the BibTeX entry.
    kind : str
        "article", "inproceedings", "book" or "software".
    authors, title : str
        Authors as BibTeX wants them, with "and" between.
    where : str
        Journal, proceedings or publisher.
    volume, pages : str
        Empty where there is none.
    year : int
    identifier : str
        "doi:..." or "arXiv:..."; empty where neither is known.
    """

    key: str
    kind: str
    authors: str
    title: str
    where: str
    volume: str
    pages: str
    year: int
    identifier: str

    def bibtex(self) -> str:
        """Return the BibTeX entry."""
        place = {"inproceedings": "booktitle", "book": "publisher"}
        fields = {
            "author": self.authors,
            "title": f"{{{self.title}}}",
            place.get(self.kind, "journal"): self.where,
            "volume": self.volume,
            "pages": self.pages,
            "year": str(self.year) if self.year else "",
        }
        if self.kind == "software":
            del fields["journal"]
            fields["version"] = __version__
        scheme, _, number = self.identifier.partition(":")
        if scheme == "doi":
            fields["doi"] = number
        elif scheme == "arXiv":
            fields |= {"eprint": number, "archiveprefix": "arXiv"}
        lines = [f"  {name} = {{{text}}}," for name, text in fields.items() if text]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])

    @property
    def short(self) -> str:
        """Family names, journal, year and identifier."""
        names = [name.split(". ")[-1] for name in self.authors.split(" and ")]
        many = len(names) > 2 or names[-1] == "others"
        who = f"{names[0]} et al." if many else " and ".join(names)
        place = " ".join(part for part in (self.where, self.volume) if part)
        spot = ", ".join(p for p in (who, place, self.pages.split("-")[0]) if p)
        return " ".join(
            part for part in (spot, f"({self.year})", self.identifier) if part
        )

    def __str__(self) -> str:
        if self.kind == "software":
            return f"{self.title}, version {__version__}"
        return f"{self.title}: {self.short}"


MDNET = Reference(
    "mdnet",
    "software",
    "{the mdnet authors}",
    "mdnet: molecular dynamics for neural networks",
    "",
    "",
    "",
    0,
    "",
)


@cache
def references() -> Mapping[str, Reference]:
    """Every reference known, by its key."""
    out = {MDNET.key: MDNET}
    for paragraph in (_TABLE + POTENTIALS).strip().split("\n\n"):
        head, authors, *title, place = paragraph.split("\n")
        key, kind, identifier = (part.strip() for part in head.split("|"))
        where, volume, pages, year = (part.strip() for part in place.split("|"))
        name = " ".join(title)
        out[key] = Reference(
            key, kind, authors, name, where, volume, pages, int(year), identifier
        )
    return out


# key | kind | identifier; authors; title (one line or more); and
# where | volume | pages | year.
_TABLE = """
swope1982 | article | doi:10.1063/1.442716
W. C. Swope and H. C. Andersen and P. H. Berens and K. R. Wilson
A computer simulation method for the calculation of equilibrium constants for the
formation of physical clusters of molecules: Application to small water clusters
J. Chem. Phys. | 76 | 637-649 | 1982

tuckerman1992 | article | doi:10.1063/1.463137
M. Tuckerman and B. J. Berne and G. J. Martyna
Reversible multiple time scale molecular dynamics
J. Chem. Phys. | 97 | 1990-2001 | 1992

yoshida1990 | article | doi:10.1016/0375-9601(90)90092-3
H. Yoshida
Construction of higher order symplectic integrators
Phys. Lett. A | 150 | 262-268 | 1990

omelyan2002 | article | doi:10.1016/S0010-4655(02)00451-4
I. P. Omelyan and I. M. Mryglod and R. Folk
Optimized Forest-Ruth- and Suzuki-like algorithms for integration of motion in many-body
systems
Comput. Phys. Commun. | 146 | 188-202 | 2002

leimkuhler2004 | book | doi:10.1017/CBO9780511614118
B. Leimkuhler and S. Reich
Simulating Hamiltonian Dynamics
Cambridge University Press | | | 2004

leimkuhler2013rational | article | doi:10.1093/amrx/abs010
B. Leimkuhler and C. Matthews
Rational construction of stochastic numerical methods for molecular sampling
Appl. Math. Res. Express | 2013 | 34-56 | 2013

leimkuhler2013robust | article | doi:10.1063/1.4802990
B. Leimkuhler and C. Matthews
Robust and efficient configurational molecular sampling via Langevin dynamics
J. Chem. Phys. | 138 | 174102 | 2013

leimkuhler2014 | article | doi:10.1098/rspa.2014.0120
B. Leimkuhler and C. Matthews and M. V. Tretyakov
On the long-time integration of stochastic gradient systems
Proc. R. Soc. A | 470 | 20140120 | 2014

leimkuhler2016computation | article | doi:10.1093/imanum/dru056
B. Leimkuhler and C. Matthews and G. Stoltz
The computation of averages from equilibrium and nonequilibrium Langevin molecular
dynamics
IMA J. Numer. Anal. | 36 | 13-79 | 2016

bussi2007langevin | article | doi:10.1103/PhysRevE.75.056707
G. Bussi and M. Parrinello
Accurate sampling using Langevin dynamics
Phys. Rev. E | 75 | 056707 | 2007

bourabee2010 | article | doi:10.1137/090758842
N. Bou-Rabee and H. Owhadi
Long-run accuracy of variational integrators in the stochastic context
SIAM J. Numer. Anal. | 48 | 278-297 | 2010

kieninger2022 | article | doi:10.1021/acs.jctc.2c00585
S. Kieninger and B. G. Keller
GROMACS stochastic dynamics and BAOAB are equivalent configurational sampling algorithms
J. Chem. Theory Comput. | 18 | 5792-5798 | 2022

sivak2014 | article | doi:10.1021/jp411770f
D. A. Sivak and J. D. Chodera and G. E. Crooks
Time step rescaling recovers continuous-time dynamical properties for discrete-time
Langevin integration of nonequilibrium systems
J. Phys. Chem. B | 118 | 6466-6474 | 2014

brunger1984 | article | doi:10.1016/0009-2614(84)80098-6
A. Brünger and C. L. Brooks and M. Karplus
Stochastic boundary conditions for molecular dynamics simulations of ST2 water
Chem. Phys. Lett. | 105 | 495-500 | 1984

gronbech2013 | article | doi:10.1080/00268976.2012.760055
N. Grønbech-Jensen and O. Farago
A simple and effective Verlet-type algorithm for simulating Langevin dynamics
Mol. Phys. | 111 | 983-991 | 2013

sanzserna2021 | article | arXiv:2104.12384
J. M. Sanz-Serna and K. C. Zygalakis
Wasserstein distance estimates for the distributions of numerical approximations to
ergodic stochastic differential equations
J. Mach. Learn. Res. | 22 | 242:1-37 | 2021

leimkuhler2016geodesic | article | doi:10.1098/rspa.2016.0138
B. Leimkuhler and C. Matthews
Efficient molecular dynamics using geodesic integration and solvent-solute splitting
Proc. R. Soc. A | 472 | 20160138 | 2016

andersen1983 | article | doi:10.1016/0021-9991(83)90014-1
H. C. Andersen
RATTLE: A velocity version of the SHAKE algorithm for molecular dynamics calculations
J. Comput. Phys. | 52 | 24-34 | 1983

martyna1992 | article | doi:10.1063/1.463940
G. J. Martyna and M. L. Klein and M. Tuckerman
Nosé-Hoover chains: The canonical ensemble via continuous dynamics
J. Chem. Phys. | 97 | 2635-2643 | 1992

martyna1996 | article | doi:10.1080/00268979600100761
G. J. Martyna and M. E. Tuckerman and D. J. Tobias and M. L. Klein
Explicit reversible integrators for extended systems dynamics
Mol. Phys. | 87 | 1117-1157 | 1996

bussi2007 | article | doi:10.1063/1.2408420
G. Bussi and D. Donadio and M. Parrinello
Canonical sampling through velocity rescaling
J. Chem. Phys. | 126 | 014101 | 2007

welling2011 | inproceedings |
M. Welling and Y. W. Teh
Bayesian learning via stochastic gradient Langevin dynamics
Proc. 28th Int. Conf. on Machine Learning | | 681-688 | 2011

melchionna2007 | article | doi:10.1063/1.2753496
S. Melchionna
Design of quasisymplectic propagators for Langevin dynamics
J. Chem. Phys. | 127 | 044108 | 2007

mandt2017 | article | arXiv:1704.04289
S. Mandt and M. D. Hoffman and D. M. Blei
Stochastic gradient descent as approximate Bayesian inference
J. Mach. Learn. Res. | 18 | 134:1-35 | 2017

chen2014 | inproceedings | arXiv:1402.4102
T. Chen and E. B. Fox and C. Guestrin
Stochastic gradient Hamiltonian Monte Carlo
Proc. 31st Int. Conf. on Machine Learning | 32 | 1683-1691 | 2014

ding2014 | inproceedings |
N. Ding and Y. Fang and R. Babbush and C. Chen and R. D. Skeel and H. Neven
Bayesian sampling using stochastic gradient thermostats
Advances in Neural Information Processing Systems | 27 | 3203-3211 | 2014

leimkuhler2016 | article | doi:10.1137/15M102318X
B. Leimkuhler and X. Shang
Adaptive thermostats for noisy gradient systems
SIAM J. Sci. Comput. | 38 | A712-A736 | 2016

shang2015 | inproceedings | arXiv:1510.08692
X. Shang and Z. Zhu and B. Leimkuhler and A. J. Storkey
Covariance-controlled adaptive Langevin thermostat for large-scale Bayesian sampling
Advances in Neural Information Processing Systems | 28 | 37-45 | 2015

metropolis1953 | article | doi:10.1063/1.1699114
N. Metropolis and A. W. Rosenbluth and M. N. Rosenbluth and A. H. Teller and E. Teller
Equation of state calculations by fast computing machines
J. Chem. Phys. | 21 | 1087-1092 | 1953

rossky1978 | article | doi:10.1063/1.436415
P. J. Rossky and J. D. Doll and H. L. Friedman
Brownian dynamics as smart Monte Carlo simulation
J. Chem. Phys. | 69 | 4628-4633 | 1978

roberts1996 | article | doi:10.2307/3318418
G. O. Roberts and R. L. Tweedie
Exponential convergence of Langevin distributions and their discrete approximations
Bernoulli | 2 | 341-363 | 1996

duane1987 | article | doi:10.1016/0370-2693(87)91197-X
S. Duane and A. D. Kennedy and B. J. Pendleton and D. Roweth
Hybrid Monte Carlo
Phys. Lett. B | 195 | 216-222 | 1987

horowitz1991 | article | doi:10.1016/0370-2693(91)90812-5
A. M. Horowitz
A generalized guided Monte Carlo algorithm
Phys. Lett. B | 268 | 247-252 | 1991

hoffman2014 | article | arXiv:1111.4246
M. D. Hoffman and A. Gelman
The No-U-Turn sampler: Adaptively setting path lengths in Hamiltonian Monte Carlo
J. Mach. Learn. Res. | 15 | 1593-1623 | 2014

robnik2023 | article | arXiv:2212.08549
J. Robnik and G. B. De Luca and E. Silverstein and U. Seljak
Microcanonical Hamiltonian Monte Carlo
J. Mach. Learn. Res. | 24 | 311:1-34 | 2023

marinari1992 | article | doi:10.1209/0295-5075/19/6/002
E. Marinari and G. Parisi
Simulated tempering: A new Monte Carlo scheme
Europhys. Lett. | 19 | 451-458 | 1992

swendsen1986 | article | doi:10.1103/PhysRevLett.57.2607
R. H. Swendsen and J.-S. Wang
Replica Monte Carlo simulation of spin-glasses
Phys. Rev. Lett. | 57 | 2607-2609 | 1986

hukushima1996 | article | doi:10.1143/JPSJ.65.1604
K. Hukushima and K. Nemoto
Exchange Monte Carlo method and application to spin glass simulations
J. Phys. Soc. Jpn. | 65 | 1604-1608 | 1996

sugita1999 | article | doi:10.1016/S0009-2614(99)01123-9
Y. Sugita and Y. Okamoto
Replica-exchange molecular dynamics method for protein folding
Chem. Phys. Lett. | 314 | 141-151 | 1999

ceperley1999 | article | doi:10.1063/1.478034
D. M. Ceperley and M. Dewing
The penalty method for random walks with uncertain energies
J. Chem. Phys. | 110 | 9812-9820 | 1999

deng2020 | inproceedings | arXiv:2008.05367
W. Deng and Q. Feng and L. Gao and F. Liang and G. Lin
Non-convex learning via replica exchange stochastic gradient MCMC
International Conference on Machine Learning | | | 2020

leimkuhler2018 | article | doi:10.1007/s11222-017-9730-1
B. Leimkuhler and C. Matthews and J. Weare
Ensemble preconditioning for Markov chain Monte Carlo simulation
Stat. Comput. | 28 | 277-290 | 2018

bennett1975 | article | doi:10.1016/0021-9991(75)90077-7
C. H. Bennett
Mass tensor molecular dynamics
J. Comput. Phys. | 19 | 267-279 | 1975

li2016 | inproceedings | doi:10.1609/aaai.v30i1.10200
C. Li and C. Chen and D. Carlson and L. Carin
Preconditioned stochastic gradient Langevin dynamics for deep neural networks
Proc. 30th AAAI Conference on Artificial Intelligence | 30 | | 2016

wenzel2020 | inproceedings | arXiv:2002.02405
F. Wenzel and others
How good is the Bayes posterior in deep neural networks really?
International Conference on Machine Learning | | | 2020

evans1983 | article | doi:10.1016/0375-9601(83)90256-6
D. J. Evans and G. P. Morriss
The isothermal/isobaric molecular dynamics ensemble
Phys. Lett. A | 98 | 433-436 | 1983

zhang1997 | article | doi:10.1063/1.473273
F. Zhang
Operator-splitting integrators for constant-temperature molecular dynamics
J. Chem. Phys. | 106 | 6102-6106 | 1997

minary2003 | article | doi:10.1063/1.1534582
P. Minary and G. J. Martyna and M. E. Tuckerman
Algorithms and novel applications based on the isokinetic ensemble. I. Biophysical and
path integral molecular dynamics
J. Chem. Phys. | 118 | 2510-2526 | 2003

rugh1997 | article | doi:10.1103/PhysRevLett.78.772
H. H. Rugh
Dynamical approach to temperature
Phys. Rev. Lett. | 78 | 772-774 | 1997

butler1998 | article | doi:10.1063/1.477301
B. D. Butler and G. Ayton and O. G. Jepps and D. J. Evans
Configurational temperature: Verification of Monte Carlo simulations
J. Chem. Phys. | 109 | 6519-6522 | 1998

hutchinson1989 | article | doi:10.1080/03610918908812806
M. F. Hutchinson
A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
splines
Commun. Stat. Simul. Comput. | 18 | 1059-1076 | 1989

salmon2011 | inproceedings | doi:10.1145/2063384.2063405
J. K. Salmon and M. A. Moraes and R. O. Dror and D. E. Shaw
Parallel random numbers: As easy as 1, 2, 3
Proceedings of SC11 | | 16:1-12 | 2011

box1958 | article | doi:10.1214/aoms/1177706645
G. E. P. Box and M. E. Muller
A note on the generation of random normal deviates
Ann. Math. Stat. | 29 | 610-611 | 1958

kingma2015 | inproceedings | arXiv:1412.6980
D. P. Kingma and J. Ba
Adam: A method for stochastic optimization
International Conference on Learning Representations | | | 2015

debuyl2014 | article | doi:10.1016/j.cpc.2014.01.018
P. de Buyl and P. H. Colberg and F. Höfling
H5MD: A structured, efficient, and portable file format for molecular data
Comput. Phys. Commun. | 185 | 1546-1553 | 2014

sokal1997 | inproceedings | doi:10.1007/978-1-4899-0319-8_6
A. Sokal
Monte Carlo methods in statistical mechanics: Foundations and new algorithms
Functional Integration: Basics and Applications | | 131-192 | 1997

wolff2004 | article | doi:10.1016/S0010-4655(03)00467-3
U. Wolff
Monte Carlo errors with less errors
Comput. Phys. Commun. | 156 | 143-153 | 2004

geyer1992 | article | doi:10.1214/ss/1177011137
C. J. Geyer
Practical Markov chain Monte Carlo
Stat. Sci. | 7 | 473-483 | 1992

chodera2016 | article | doi:10.1021/acs.jctc.5b00784
J. D. Chodera
A simple method for automated equilibration detection in molecular simulations
J. Chem. Theory Comput. | 12 | 1799-1805 | 2016

vehtari2021 | article | doi:10.1214/20-BA1221
A. Vehtari and A. Gelman and D. Simpson and B. Carpenter and P.-C. Bürkner
Rank-normalization, folding, and localization: An improved R-hat for assessing
convergence of MCMC
Bayesian Anal. | 16 | 667-718 | 2021

shirts2013 | article | doi:10.1021/ct300688p
M. R. Shirts
Simple quantitative tests to validate sampling from thermodynamic ensembles
J. Chem. Theory Comput. | 9 | 909-926 | 2013

merz2018 | article | doi:10.1371/journal.pone.0202764
P. T. Merz and M. R. Shirts
Testing for physical validity in molecular simulations
PLoS ONE | 13 | e0202764 | 2018

wang2009 | article | doi:10.1109/TIT.2009.2016060
Q. Wang and S. R. Kulkarni and S. Verdú
Divergence estimation for multidimensional densities via k-nearest-neighbor distances
IEEE Trans. Inf. Theory | 55 | 2392-2405 | 2009

bennett1976 | article | doi:10.1016/0021-9991(76)90078-4
C. H. Bennett
Efficient estimation of free energy differences from Monte Carlo data
J. Comput. Phys. | 22 | 245-268 | 1976

jarzynski1997 | article | doi:10.1103/PhysRevLett.78.2690
C. Jarzynski
Nonequilibrium equality for free energy differences
Phys. Rev. Lett. | 78 | 2690-2693 | 1997

crooks1999 | article | doi:10.1103/PhysRevE.60.2721
G. E. Crooks
Entropy production fluctuation theorem and the nonequilibrium work relation for free
energy differences
Phys. Rev. E | 60 | 2721-2726 | 1999

neal2001 | article | doi:10.1023/A:1008923215028
R. M. Neal
Annealed importance sampling
Stat. Comput. | 11 | 125-139 | 2001

shirts2008 | article | doi:10.1063/1.2978177
M. R. Shirts and J. D. Chodera
Statistically optimal analysis of samples from multiple equilibrium states
J. Chem. Phys. | 129 | 124105 | 2008

friel2008 | article | doi:10.1111/j.1467-9868.2007.00650.x
N. Friel and A. N. Pettitt
Marginal likelihood estimation via power posteriors
J. R. Stat. Soc. B | 70 | 589-607 | 2008
"""
