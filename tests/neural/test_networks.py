"""Derivatives written out against autograd, and the two generators."""

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.features import FeatureBasis, FeatureValue
from neural.value_network import Link, ValueNetwork

ACTIVATIONS = (neural.TANH, neural.SINE, neural.SOFTPLUS)


def network(d, activation=neural.TANH, seed=0):
    source = torch.Generator().manual_seed(seed)
    return neural.MLP(d, 1, (16, 16, 16), activation, source)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)
def test_taylor_generator_equals_nested_autograd(d, activation):
    net, source = network(d, activation), torch.Generator().manual_seed(1)
    x = torch.randn(40, d, dtype=torch.float64, generator=source)
    f = torch.randn(40, d, dtype=torch.float64, generator=source)
    sigma = torch.randn(40, d, 3, dtype=torch.float64, generator=source)
    nested = neural.generator_autograd(net, x, f, sigma)
    forward = neural.generator_taylor(net, x, f, sigma)
    torch.testing.assert_close(nested, forward, rtol=1e-12, atol=1e-12)


def test_both_generators_send_the_same_gradient_to_the_weights():
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator())
    sigma = torch.eye(2, dtype=torch.float64).expand(20, 2, 2)
    grads = []
    for generator in (neural.generator_autograd, neural.generator_taylor):
        net = network(2)
        (generator(net, x, -x, sigma) ** 2).mean().backward()
        grads.append(torch.cat([W.grad.ravel() for W in net.weights]))  # type: ignore[union-attr]
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)
def test_jet_and_sweep_agree_with_autograd(activation):
    net = network(3, activation)
    x = torch.randn(10, 3, dtype=torch.float64).requires_grad_(True)
    p = torch.autograd.grad(net(x).sum(), x)[0]
    value, slope, bend = net.jet(x.detach())
    _, swept = net.value_and_gradient(x.detach())
    hess = torch.autograd.functional.hessian(lambda y: net(y[None])[0, 0], x[0])
    torch.testing.assert_close(value, net(x)[:, 0].detach())
    torch.testing.assert_close(slope, p, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(swept, p, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bend[0], hess.detach(), rtol=1e-12, atol=1e-12)  # type: ignore[union-attr]


def features(d=2):
    box = hjb.Box([-1.0] * d, [3.0] * d)
    rng = np.random.default_rng(0)
    basis = FeatureBasis.draw(box, 20, 1.5, rng)
    return box, FeatureValue(basis, rng.standard_normal(basis.size))


def networks(exponential):
    box = hjb.Box([-1.0, 0.5], [3.0, 1.5])
    link = Link(0.0, -2.0, True) if exponential else Link(3.0, -2.0)
    return box, ValueNetwork(network(2), box.centre, 0.5 * box.width, link)


@pytest.mark.parametrize(
    "built",
    [features(), networks(False), networks(True)],
    ids=["features", "network", "exponential"],
)
def test_derivatives_of_a_value_agree_with_differences(built):
    box, model = built
    x = box.inner(0.8).sample(np.random.default_rng(1), 20)
    p, hess, h = model.gradient(x), model.hessian(x), 1e-5
    for k, e in enumerate(h * np.eye(2)):
        slope = (model.value(x + e) - model.value(x - e)) / (2 * h)
        bend = (model.gradient(x + e) - model.gradient(x - e)) / (2 * h)
        np.testing.assert_allclose(p[:, k], slope, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(hess[:, k], bend, rtol=1e-6, atol=1e-7)


def test_feature_tables_are_the_operators_of_the_value():
    box, model = features()
    rng = np.random.default_rng(2)
    x, u = box.sample(rng, 15), rng.standard_normal((15, 2))
    sigma = rng.standard_normal((15, 2, 3))
    tables, c = model.basis.at(x), model.coefficients
    noise = np.einsum("nik,njk->nij", sigma, sigma)
    bend = 0.5 * np.einsum("nij,nij->n", noise, model.hessian(x))
    np.testing.assert_allclose(tables.values() @ c, model.value(x), atol=1e-12)
    slope = (u * model.gradient(x)).sum(-1)
    np.testing.assert_allclose(tables.along(u) @ c, slope, atol=1e-12)
    np.testing.assert_allclose(tables.curvature(sigma) @ c, bend, atol=1e-11)
