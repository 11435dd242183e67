"""The papers that potentials, networks and minibatches rest on, as text.

`mdnet.bibliography` reads it, with the papers of everything else.
"""

__all__ = ["POTENTIALS"]

# As the table in `mdnet.bibliography`.
POTENTIALS = """
neal1996 | book | doi:10.1007/978-1-4612-0745-0
R. M. Neal
Bayesian Learning for Neural Networks
Springer | | | 1996

mackay1992 | article | doi:10.1162/neco.1992.4.3.415
D. J. C. MacKay
Bayesian interpolation
Neural Comput. | 4 | 415-447 | 1992

neal2003 | article | doi:10.1214/aos/1056562461
R. M. Neal
Slice sampling
Ann. Stat. | 31 | 705-767 | 2003

muller1979 | article | doi:10.1007/BF00547608
K. Müller and L. D. Brown
Location of saddle points and minimum energy paths by a constrained simplex optimization
procedure
Theor. Chim. Acta | 53 | 75-93 | 1979

rosenbrock1960 | article | doi:10.1093/comjnl/3.3.175
H. H. Rosenbrock
An automatic method for finding the greatest or least value of a function
Comput. J. | 3 | 175-184 | 1960

pagani2022 | article | doi:10.1111/sjos.12532
F. Pagani and M. Wiegand and S. Nadarajah
An n-dimensional Rosenbrock distribution for Markov chain Monte Carlo testing
Scand. J. Stat. | 49 | 657-680 | 2022

torrie1977 | article | doi:10.1016/0021-9991(77)90121-8
G. M. Torrie and J. P. Valleau
Nonphysical sampling distributions in Monte Carlo free-energy estimation: Umbrella
sampling
J. Comput. Phys. | 23 | 187-199 | 1977

mccullagh1980 | article | doi:10.1111/j.2517-6161.1980.tb01109.x
P. McCullagh
Regression models for ordinal data
J. R. Stat. Soc. B | 42 | 109-142 | 1980

lange1989 | article | doi:10.1080/01621459.1989.10478852
K. L. Lange and R. J. A. Little and J. M. G. Taylor
Robust statistical modeling using the t distribution
J. Am. Stat. Assoc. | 84 | 881-896 | 1989

nix1994 | inproceedings | doi:10.1109/ICNN.1994.374138
D. A. Nix and A. S. Weigend
Estimating the mean and variance of the target probability distribution
Proc. IEEE Int. Conf. on Neural Networks | 1 | 55-60 | 1994

zhang2017 | inproceedings | arXiv:1611.03530
C. Zhang and S. Bengio and M. Hardt and B. Recht and O. Vinyals
Understanding deep learning requires rethinking generalization
International Conference on Learning Representations | | | 2017

carvalho2010 | article | doi:10.1093/biomet/asq017
C. M. Carvalho and N. G. Polson and J. G. Scott
The horseshoe estimator for sparse signals
Biometrika | 97 | 465-480 | 2010

gelman2006 | article | doi:10.1214/06-BA117A
A. Gelman
Prior distributions for variance parameters in hierarchical models
Bayesian Anal. | 1 | 515-534 | 2006

lecun1998 | article | doi:10.1109/5.726791
Y. LeCun and L. Bottou and Y. Bengio and P. Haffner
Gradient-based learning applied to document recognition
Proc. IEEE | 86 | 2278-2324 | 1998

lecun1998efficient | inproceedings | doi:10.1007/3-540-49430-8_2
Y. LeCun and L. Bottou and G. B. Orr and K.-R. Müller
Efficient BackProp
Neural Networks: Tricks of the Trade | | 9-50 | 1998

glorot2010 | inproceedings |
X. Glorot and Y. Bengio
Understanding the difficulty of training deep feedforward neural networks
Proc. 13th Int. Conf. on Artificial Intelligence and Statistics | 9 | 249-256 | 2010

saxe2014 | inproceedings | arXiv:1312.6120
A. M. Saxe and J. L. McClelland and S. Ganguli
Exact solutions to the nonlinear dynamics of learning in deep linear neural networks
International Conference on Learning Representations | | | 2014

he2015 | inproceedings | doi:10.1109/ICCV.2015.123
K. He and X. Zhang and S. Ren and J. Sun
Delving deep into rectifiers: Surpassing human-level performance on ImageNet
classification
IEEE International Conference on Computer Vision | | 1026-1034 | 2015

he2016 | inproceedings | doi:10.1109/CVPR.2016.90
K. He and X. Zhang and S. Ren and J. Sun
Deep residual learning for image recognition
IEEE Conference on Computer Vision and Pattern Recognition | | 770-778 | 2016

ba2016 | article | arXiv:1607.06450
J. L. Ba and J. R. Kiros and G. E. Hinton
Layer normalization
Preprint | | | 2016

singh2020 | inproceedings | arXiv:1911.09737
S. Singh and S. Krishnan
Filter response normalization layer: Eliminating batch dependence in the training of
deep neural networks
IEEE Conference on Computer Vision and Pattern Recognition | | | 2020

smolensky1986 | inproceedings |
P. Smolensky
Information processing in dynamical systems: Foundations of harmony theory
Parallel Distributed Processing | 1 | 194-281 | 1986

hinton2002 | article | doi:10.1162/089976602760128018
G. E. Hinton
Training products of experts by minimizing contrastive divergence
Neural Comput. | 14 | 1771-1800 | 2002

tieleman2008 | inproceedings | doi:10.1145/1390156.1390290
T. Tieleman
Training restricted Boltzmann machines using approximations to the likelihood gradient
Proc. 25th Int. Conf. on Machine Learning | | 1064-1071 | 2008

salakhutdinov2008 | inproceedings | doi:10.1145/1390156.1390266
R. Salakhutdinov and I. Murray
On the quantitative analysis of deep belief networks
Proc. 25th Int. Conf. on Machine Learning | | 872-879 | 2008

gabrie2015 | inproceedings | arXiv:1506.02914
M. Gabrié and E. W. Tramel and F. Krzakala
Training restricted Boltzmann machines via the Thouless-Anderson-Palmer free energy
Advances in Neural Information Processing Systems | 28 | | 2015

plefka1982 | article | doi:10.1088/0305-4470/15/6/035
T. Plefka
Convergence condition of the TAP equation for the infinite-ranged Ising spin glass model
J. Phys. A | 15 | 1971-1978 | 1982

hopfield1982 | article | doi:10.1073/pnas.79.8.2554
J. J. Hopfield
Neural networks and physical systems with emergent collective computational abilities
Proc. Natl. Acad. Sci. USA | 79 | 2554-2558 | 1982

hopfield1984 | article | doi:10.1073/pnas.81.10.3088
J. J. Hopfield
Neurons with graded response have collective computational properties like those of
two-state neurons
Proc. Natl. Acad. Sci. USA | 81 | 3088-3092 | 1984

amit1985 | article | doi:10.1103/PhysRevLett.55.1530
D. J. Amit and H. Gutfreund and H. Sompolinsky
Storing infinite numbers of patterns in a spin-glass model of neural networks
Phys. Rev. Lett. | 55 | 1530-1533 | 1985

personnaz1985 | article |
L. Personnaz and I. Guyon and G. Dreyfus
Information storage and retrieval in spin-glass like neural networks
J. Physique Lett. | 46 | 359-365 | 1985

ramsauer2021 | inproceedings | arXiv:2008.02217
H. Ramsauer and others
Hopfield networks is all you need
International Conference on Learning Representations | | | 2021

gardner1989 | article | doi:10.1088/0305-4470/22/12/004
E. Gardner and B. Derrida
Three unfinished works on the optimal storage capacity of networks
J. Phys. A | 22 | 1983-1994 | 1989

gyorgyi1990 | article | doi:10.1103/PhysRevA.41.7097
G. Györgyi
First-order transition to perfect generalization in a neural network with binary
synapses
Phys. Rev. A | 41 | 7097-7100 | 1990

seung1992 | article | doi:10.1103/PhysRevA.45.6056
H. S. Seung and H. Sompolinsky and N. Tishby
Statistical mechanics of learning from examples
Phys. Rev. A | 45 | 6056-6091 | 1992

saad1995 | article | doi:10.1103/PhysRevE.52.4225
D. Saad and S. A. Solla
On-line learning in soft committee machines
Phys. Rev. E | 52 | 4225-4243 | 1995

crisanti1992 | article | doi:10.1007/BF01309287
A. Crisanti and H.-J. Sommers
The spherical p-spin interaction spin glass model: The statics
Z. Phys. B | 87 | 341-354 | 1992

kosterlitz1976 | article | doi:10.1103/PhysRevLett.36.1217
J. M. Kosterlitz and D. J. Thouless and R. C. Jones
Spherical model of a spin-glass
Phys. Rev. Lett. | 36 | 1217-1220 | 1976

sherrington1975 | article | doi:10.1103/PhysRevLett.35.1792
D. Sherrington and S. Kirkpatrick
Solvable model of a spin-glass
Phys. Rev. Lett. | 35 | 1792-1796 | 1975

thouless1977 | article | doi:10.1080/14786437708235992
D. J. Thouless and P. W. Anderson and R. G. Palmer
Solution of 'Solvable model of a spin glass'
Phil. Mag. | 35 | 593-601 | 1977

derrida1981 | article | doi:10.1103/PhysRevB.24.2613
B. Derrida
Random-energy model: An exactly solvable model of disordered systems
Phys. Rev. B | 24 | 2613-2626 | 1981

tipping1999 | article | doi:10.1111/1467-9868.00196
M. E. Tipping and C. M. Bishop
Probabilistic principal component analysis
J. R. Stat. Soc. B | 61 | 611-622 | 1999

kingma2014 | inproceedings | arXiv:1312.6114
D. P. Kingma and M. Welling
Auto-encoding variational Bayes
International Conference on Learning Representations | | | 2014

baldassi2016 | article | doi:10.1073/pnas.1608103113
C. Baldassi and others
Unreasonable effectiveness of learning neural networks: From accessible states and
robust ensembles to basic algorithmic schemes
Proc. Natl. Acad. Sci. USA | 113 | E7655-E7662 | 2016

chaudhari2019 | article | doi:10.1088/1742-5468/ab39d9
P. Chaudhari and others
Entropy-SGD: Biasing gradient descent into wide valleys
J. Stat. Mech. | 2019 | 124018 | 2019

ainsworth2023 | inproceedings | arXiv:2209.04836
S. K. Ainsworth and J. Hayase and S. Srinivasa
Git re-basin: Merging models modulo permutation symmetries
International Conference on Learning Representations | | | 2023

sussmann1992 | article | doi:10.1016/S0893-6080(05)80037-1
H. J. Sussmann
Uniqueness of the weights for minimal feedforward nets with a given input-output map
Neural Networks | 5 | 589-593 | 1992

pearlmutter1994 | article | doi:10.1162/neco.1994.6.1.147
B. A. Pearlmutter
Fast exact multiplication by the Hessian
Neural Comput. | 6 | 147-160 | 1994

li2018 | inproceedings | arXiv:1712.09913
H. Li and Z. Xu and G. Taylor and C. Studer and T. Goldstein
Visualizing the loss landscape of neural nets
Advances in Neural Information Processing Systems | 31 | | 2018

baker2019 | article | doi:10.1007/s11222-018-9826-2
J. Baker and P. Fearnhead and E. B. Fox and C. Nemeth
Control variates for stochastic gradient MCMC
Stat. Comput. | 29 | 599-615 | 2019

dubey2016 | inproceedings |
K. A. Dubey and others
Variance reduction in stochastic gradient Langevin dynamics
Advances in Neural Information Processing Systems | 29 | | 2016

johnson2013 | inproceedings |
R. Johnson and T. Zhang
Accelerating stochastic gradient descent using predictive variance reduction
Advances in Neural Information Processing Systems | 26 | | 2013

defazio2014 | inproceedings | arXiv:1407.0202
A. Defazio and F. Bach and S. Lacoste-Julien
SAGA: A fast incremental gradient method with support for non-strongly convex composite
objectives
Advances in Neural Information Processing Systems | 27 | | 2014
"""
