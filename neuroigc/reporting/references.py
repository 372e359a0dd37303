"""The works that a methods section may cite."""

__all__ = ["REFERENCES"]

REFERENCES = {
    "igc": "Lelièvre, P., & Chen, C.-C. (2024). Integrated Gradient Correlation: a Dataset-wise "
    "Attribution Method. arXiv:2404.13910.",
    "ig": "Sundararajan, M., Taly, A., & Yan, Q. (2017). Axiomatic attribution for deep networks. "
    "ICML 2017. arXiv:1703.01365.",
    "nsd": "Allen, E. J., St-Yves, G., Wu, Y., et al. (2022). A massive 7T fMRI dataset to bridge "
    "cognitive neuroscience and artificial intelligence. Nature Neuroscience, 25, 116–126. "
    "doi:10.1038/s41593-021-00962-x.",
    "algonauts": "Gifford, A. T., Lahner, B., Saba-Sadiya, S., et al. (2023). The Algonauts "
    "Project 2023 Challenge: How the human brain makes sense of natural scenes. arXiv:2301.03198.",
    "fsaverage": "Fischl, B., Sereno, M. I., Tootell, R. B. H., & Dale, A. M. (1999). "
    "High-resolution intersubject averaging and a coordinate system for the cortical surface. "
    "Human Brain Mapping, 8, 272–284.",
    "batchnorm": "Ioffe, S., & Szegedy, C. (2015). Batch normalization: accelerating deep network "
    "training by reducing internal covariate shift. ICML 2015. arXiv:1502.03167.",
    "mish": "Misra, D. (2020). Mish: a self regularized non-monotonic activation function. "
    "BMVC 2020. arXiv:1908.08681.",
    "adamw": "Loshchilov, I., & Hutter, F. (2019). Decoupled weight decay regularization. "
    "ICLR 2019. arXiv:1711.05101.",
    "prf": "Dumoulin, S. O., & Wandell, B. A. (2008). Population receptive field estimates in "
    "human visual cortex. NeuroImage, 39, 647–660.",
    "jackknife": "Efron, B., & Stein, C. (1981). The jackknife estimate of variance. The Annals of "
    "Statistics, 9, 586–596.",
    "permutation": "Nichols, T. E., & Holmes, A. P. (2002). Nonparametric permutation tests for "
    "functional neuroimaging: a primer with examples. Human Brain Mapping, 15, 1–25.",
    "fdr": "Benjamini, Y., & Hochberg, Y. (1995). Controlling the false discovery rate: a "
    "practical and powerful approach to multiple testing. Journal of the Royal Statistical "
    "Society B, 57, 289–300.",
    "prevalence": "Allefeld, C., Görgen, K., & Haynes, J.-D. (2016). Valid population inference "
    "for information-based imaging: from the second-level t-test to prevalence inference. "
    "NeuroImage, 141, 378–392.",
    "ridge": "Hoerl, A. E., & Kennard, R. W. (1970). Ridge regression: biased estimation for "
    "nonorthogonal problems. Technometrics, 12, 55–67.",
    "css": "Kay, K. N., Winawer, J., Mezer, A., & Wandell, B. A. (2013). Compressive spatial "
    "summation in human visual cortex. Journal of Neurophysiology, 110, 481–494.",
}
